"""The COCO evaluation beside pycocotools', from detections to the twelve figures, which are compared."""

from __future__ import annotations

import contextlib
import io
from functools import partial
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.data.annotations import Annotations, in_order
from detection.report.coco_metrics import coco_evaluate, coco_objects
from detection.report.predictions import Predictions, as_coco
from engine.seed import generator
from tools.bench.timing import Table, interleaved, timed

CLASSES = 80
MEAN_OBJECTS = 7
"""Objects of an image; COCO's mean."""
FULL, QUICK = (2000, 200_000), (20, 500)
"""Images and detections."""


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: few images, one round. pycocotools begins with its lists made."""
    images, detections = QUICK if quick else FULL
    known, found = results(images, detections)
    given = coco_objects(known).dataset, as_coco(found, known)
    theirs = pycocotools_figures(*given)
    ours = [*coco_evaluate(found, known).metrics.values()]
    np.testing.assert_allclose(ours, np.where(theirs == -1, np.nan, theirs), rtol=0, atol=1e-6)
    row = f"{images} images, {detections} boxes"
    work = {
        (row, "pycocotools"): timed(partial(pycocotools_figures, *given)),
        (row, "ours"): timed(partial(coco_evaluate, found, known)),
    }
    table = Table("coco", "The COCO evaluation", "milliseconds", interleaved(work, 1 if quick else 2))
    table.compare_columns("pycocotools", "ours", shown="ours")
    return table


def results(images: int, detections: int) -> tuple[Annotations, Predictions]:
    """Draws random objects, and detections of which most lie near one."""
    rng = generator(0, "bench detection")
    count = MEAN_OBJECTS * images
    corner, sides = rng.uniform(0, 400, (count, 2)), rng.uniform(8, 200, (count, 2))
    boxes, labels = np.concatenate([corner, corner + sides], axis=1), rng.integers(CLASSES, size=count)
    order, starts = in_order(rng.integers(images, size=count), images)
    known = Annotations(
        classes=[f"class {number}" for number in range(CLASSES)],
        category_ids=list(range(1, CLASSES + 1)),
        image_ids=np.arange(1, images + 1),
        sizes=np.full((images, 2), 640),
        starts=starts,
        boxes=boxes[order],
        labels=labels[order],
        crowd=rng.random(count) < 0.01,
        areas=sides.prod(axis=1)[order],
    )
    owners = np.repeat(np.arange(images), np.diff(starts))
    near = np.sort(rng.integers(count, size=detections))
    moved = known.boxes[near] + rng.normal(0, 12, (detections, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 2)
    scores = rng.random(detections)
    order = np.lexsort((-scores, owners[near]))
    right = rng.random(detections) < 0.5
    guessed = np.where(right, known.labels[near], rng.integers(CLASSES, size=detections))
    starts = np.searchsorted(owners[near], np.arange(images + 1))
    return known, Predictions(starts, guessed[order], scores[order], moved[order])


def pycocotools_figures(truth: dict[str, Any], entries: list[dict[str, Any]]) -> np.ndarray:
    """Computes the twelve figures by COCO's own code; -1 where there is nothing to find."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **truth}
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes([dict(entry) for entry in entries]), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats
