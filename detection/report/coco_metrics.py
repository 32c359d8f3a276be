"""COCO's figures, computed with faster-coco-eval: the twelve, those of each class, and precision-recall curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from detection.data.annotations import Annotations
from detection.report.metric_names import METRICS
from detection.report.predictions import Predictions, as_annotations, entries
from engine.distributed.ranks import Ranks

RECALLS = np.linspace(0, 1, 101)
"""Where COCO reads precision off."""


@dataclass(frozen=True)
class CocoResult:
    """What the evaluation says. Fractions; NaN where there is no object to find."""

    metrics: dict[str, float]
    """The twelve figures, see :data:`detection.report.metric_names.METRICS`."""
    per_class: dict[str, NDArray[np.float64]]
    """``AP``, ``AP50`` and ``AR_100`` of each class, (C,), and its number of ``objects``."""
    precision: NDArray[np.float64]
    """(C, 101) precision at IoU 0.5 at each of :data:`RECALLS`."""


def coco_evaluate(predictions: Predictions, known: Annotations) -> CocoResult:
    """Evaluates as pycocotools does, which the figures equal; crowd regions neither count nor cost anything.

    COCO's evaluator sees numbers of its own for images and classes, so any ids of the data set will do. They begin with
    1: 0 means "none" to it.
    """
    found = _dataset(known, as_annotations(predictions, *_numbers(known)))
    evaluator = COCOeval_faster(coco_objects(known), found, "bbox", print_function=lambda *steps: None)
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    # precision: (10 IoUs, 101 recalls, classes, 4 sizes, 3 limits), recall: without the recalls; -1: no object.
    values = {
        "AP": precision[:, :, :, 0, 2],
        "AP50": precision[0, :, :, 0, 2],
        "AP75": precision[5, :, :, 0, 2],
        **{f"AP_{name}": precision[:, :, :, size, 2] for size, name in enumerate(_SIZES, start=1)},
        **{f"AR_{limit}": recall[:, :, 0, place] for place, limit in enumerate((1, 10, 100))},
        **{f"AR_{name}": recall[:, :, size, 2] for size, name in enumerate(_SIZES, start=1)},
    }
    classes = len(known.classes)
    per_class = {
        "AP": np.array([_mean(precision[:, :, c, 0, 2]) for c in range(classes)]),
        "AP50": np.array([_mean(precision[0, :, c, 0, 2]) for c in range(classes)]),
        "AR_100": np.array([_mean(recall[:, c, 0, 2]) for c in range(classes)]),
        "objects": np.bincount(known.labels[~known.crowd], minlength=classes).astype(np.float64),
    }
    curves = precision[0, :, :, 0, 2].T
    return CocoResult({name: _mean(values[name]) for name in METRICS}, per_class, np.where(curves < 0, np.nan, curves))


def evaluate_on_main(predictions: Predictions, known: Annotations, ranks: Ranks) -> CocoResult:
    """Evaluates on rank 0, for all."""
    ranks.heartbeat.at("measure")
    return ranks.from_main(lambda: coco_evaluate(predictions, known))


_SIZES = ("small", "medium", "large")


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what is defined; NaN if nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")


def _dataset(known: Annotations, annotations: list[dict[str, Any]]) -> COCO:
    dataset = COCO()
    dataset.dataset = {
        "images": [{"id": number} for number in range(1, len(known) + 1)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(known.classes, start=1)],
    }
    dataset.createIndex()
    return dataset


def coco_objects(known: Annotations) -> COCO:
    """Returns the objects to be found as COCO's evaluators take them, by numbers in place of ids."""
    numbers, crowd = range(1, len(known.boxes) + 1), known.crowd.astype(int).tolist()
    return _dataset(known, entries(known, *_numbers(known), id=numbers, area=known.areas.tolist(), iscrowd=crowd))


def _numbers(known: Annotations) -> tuple[range, range]:
    """Of images and of classes."""
    return range(1, len(known) + 1), range(1, len(known.classes) + 1)
