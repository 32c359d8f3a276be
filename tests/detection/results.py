"""Random annotations and detections, and what pycocotools makes of them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.data.annotations import Annotations, in_order
from detection.report.predictions import Predictions, as_coco


def truth(
    images: int,
    boxes: Any = (),
    labels: Any = (),
    owners: Any = (),
    crowd: Any = None,
    ids: Any = None,
    side: int = 200,
) -> Annotations:
    """Images of ``side`` squared pixels with boxes (T, 4) of the images ``owners``; class ids as given."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    order, starts = in_order(np.asarray(owners, np.int64), images)
    category_ids = list(ids) if ids is not None else [1, 2, 3]
    return Annotations(
        classes=[f"class {number}" for number in category_ids],
        category_ids=category_ids,
        image_ids=np.arange(images) * 7 + 1000,
        sizes=np.full((images, 2), side),
        starts=starts,
        boxes=boxes[order],
        labels=np.asarray(labels, np.int64)[order],
        crowd=np.asarray(crowd if crowd is not None else np.zeros(len(boxes)), bool)[order],
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[order],
    )


def predictions(images: int, boxes: Any = (), labels: Any = (), scores: Any = (), owners: Any = ()) -> Predictions:
    boxes, scores = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores, np.float64)
    order = np.lexsort((-scores, np.asarray(owners, np.int64)))
    starts = np.searchsorted(np.asarray(owners, np.int64)[order], np.arange(images + 1))
    return Predictions(starts, np.asarray(labels, np.int64)[order], scores[order], boxes[order])


def random_results(
    seed: int, images: int = 20, objects: int = 60, detections: int = 400, classes: int = 3, crowds: float = 0.1
) -> tuple[Annotations, Predictions]:
    """Objects and detections, many of which lie near an object; scores of few values, so that there are ties."""
    rng = np.random.default_rng(seed)
    corner, sides = rng.uniform(0, 100, (objects, 2)), rng.uniform(4, 100, (objects, 2))
    boxes, owners = np.concatenate([corner, corner + sides], 1), rng.integers(images, size=objects)
    labels = rng.integers(classes, size=objects)
    ids = rng.permutation(90)[:classes] + 1
    known = truth(images, boxes, labels, owners, rng.random(objects) < crowds, ids.tolist())
    near = rng.integers(objects, size=detections)
    moved = boxes[near] + rng.normal(0, 4, (detections, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    guessed = np.where(rng.random(detections) < 0.8, labels[near], rng.integers(classes, size=detections))
    where = np.where(rng.random(detections) < 0.9, owners[near], rng.integers(images, size=detections))
    return known, predictions(images, moved, guessed, rng.integers(1, 50, detections) / 50, where)


def by_pycocotools(found: Predictions, known: Annotations) -> COCOeval:
    """The evaluation of the same by COCO's own code, under the data set's ids."""
    coco = COCO()
    owners = np.repeat(known.image_ids, np.diff(known.starts)).tolist()
    coco.dataset = {
        "info": {},
        "images": [{"id": number} for number in known.image_ids.tolist()],
        "categories": [{"id": i, "name": n} for i, n in zip(known.category_ids, known.classes, strict=True)],
        "annotations": [
            {
                "id": place + 1,
                "image_id": owner,
                "category_id": known.category_ids[known.labels[place]],
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": known.areas[place],
                "iscrowd": int(known.crowd[place]),
            }
            for place, (owner, box) in enumerate(zip(owners, known.boxes.tolist(), strict=True))
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(as_coco(found, known)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator
