"""Classes by how many training images they had: what is seldom seen is seldom learned."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classification.metrics.predictions import AnyPredictions, Predictions


def size_bins(bounds: Sequence[int], train_counts: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Groups the classes by training images, (C,): ``10-99``, say, or ``500+``, to the numbers of its classes.

    A group begins with each of ``bounds``; before them is one for classes of fewer images, if there are any.
    """
    names = [str(low) if low == high - 1 else f"{low}-{high - 1}" for low, high in pairwise([0, *bounds])]
    group = np.digitize(train_counts, bounds)
    found = {name: np.flatnonzero(group == number) for number, name in enumerate([*names, f"{bounds[-1]}+"])}
    return found if len(found[names[0]]) else {name: found[name] for name in list(found)[1:]}


def by_size(
    bins: dict[str, NDArray[np.int64]], predictions: AnyPredictions, table: dict[str, NDArray]
) -> list[dict[str, Any]]:
    """Measures each group of :func:`size_bins`, a row each; None where it has no images, or no positives.

    With one label an image: ``images``, ``top1`` and ``top5`` over them, and ``recall_macro``; with several:
    ``positives``, ``recall_macro``, ``f1_macro`` and ``mAP``. Macro values are means over the classes that occur.
    ``table``: the metrics of each class, (C,).
    """
    rows = []
    hits = predictions.top == predictions.labels[:, None] if isinstance(predictions, Predictions) else None
    for name, classes in bins.items():
        there = classes[table["support"][classes] > 0]
        row = {"train_images": name, "classes": len(classes)}
        if hits is not None:
            own = hits[np.isin(predictions.labels, classes)]
            means = {"top1": _mean(own[:, 0]), "top5": _mean(own.any(axis=1))}
            rows.append({**row, "images": len(own), **means, "recall_macro": _mean(table["recall"][there])})
        else:
            columns = {"recall_macro": "recall", "f1_macro": "f1", "mAP": "average_precision"}
            means = {metric: _mean(table[column][there]) for metric, column in columns.items()}
            rows.append({**row, "positives": int(predictions.labels[:, classes].sum()), **means})
    return rows


def _mean(values: NDArray) -> float | None:
    return float(values.mean()) if len(values) else None
