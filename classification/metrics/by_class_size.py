"""Classes by how many training images they had: what is seldom seen is seldom learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classification.metrics.predictions import MultiLabelPredictions, Predictions


@dataclass(frozen=True)
class SizeBin:
    """Classes with a like number of training images."""

    name: str
    """``10-99``, or ``500+``: fewest and most training images."""
    classes: NDArray[np.int64]
    """Their numbers."""


def size_bins(bounds: Sequence[int], train_counts: NDArray[np.int64]) -> list[SizeBin]:
    """The groups that begin with each of ``bounds``; before them one for classes of fewer images, if there are any.

    ``train_counts``: (C,). Each class is in one group; groups may be empty.
    """
    starts = [0, *bounds]
    group = np.searchsorted(np.asarray(bounds), train_counts, side="right")
    found = []
    for number, start in enumerate(starts):
        last = starts[number + 1] - 1 if number < len(bounds) else None
        name = f"{start}+" if last is None else str(start) if last == start else f"{start}-{last}"
        classes = np.flatnonzero(group == number)
        if number or len(classes):
            found.append(SizeBin(name, classes))
    return found


def by_size(bins: Sequence[SizeBin], predictions: Predictions, recall: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Of each group: ``classes``, ``images``, ``top1`` and ``top5`` over its images, and ``recall_macro``.

    The last is the mean of ``recall`` (C,) over those of its classes that have images. None without images.
    """
    hits = predictions.top == predictions.labels[:, None]
    occurring = np.unique(predictions.labels)
    rows = []
    for one in bins:
        chosen = np.isin(predictions.labels, one.classes)
        there = np.intersect1d(one.classes, occurring)
        rows.append(
            {
                "train_images": one.name,
                "classes": len(one.classes),
                "images": int(chosen.sum()),
                "top1": _mean(hits[chosen, 0]),
                "top5": _mean(hits[chosen].any(axis=1)),
                "recall_macro": _mean(recall[there]),
            }
        )
    return rows


def by_size_multilabel(
    bins: Sequence[SizeBin], predictions: MultiLabelPredictions, table: dict[str, NDArray]
) -> list[dict[str, Any]]:
    """Of each group: ``classes``, ``positives``, and the means of recall, F1 and average precision over its classes.

    Only classes with positives count. ``table``: what ``multilabel_per_class`` gives. None without positives.
    """
    rows = []
    for one in bins:
        there = one.classes[table["support"][one.classes] > 0]
        rows.append(
            {
                "train_images": one.name,
                "classes": len(one.classes),
                "positives": int(predictions.labels[:, one.classes].sum()),
                "recall_macro": _mean(table["recall"][there]),
                "f1_macro": _mean(table["f1"][there]),
                "mAP": _mean(table["average_precision"][there]),
            }
        )
    return rows


def _mean(values: NDArray) -> float | None:
    return float(values.mean()) if len(values) else None
