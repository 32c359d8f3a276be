"""Classification metrics from per-sample results, computed once, on all samples."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from classification.metrics.names import AVERAGES
from classification.metrics.predictions import Predictions


def metrics(predictions: Predictions) -> dict[str, float]:
    """Returns :data:`classification.metrics.names.METRICS`: fractions in [0, 1], and the mean loss.

    ``top5`` is the share of samples whose class is among the five most probable (all of them, if there are fewer).
    Macro values are plain means over the classes that occur among labels or predictions, as scikit-learn takes them;
    a class that is never predicted has precision 0. Weighted ones are weighted by a class's number of samples. Micro
    values count all classes together; with one label a sample they all equal ``top1``.
    """
    labels, top = predictions.labels, predictions.top
    hits = top == labels[:, None]
    return {
        "loss": float(predictions.losses.mean()),
        "top1": float(hits[:, 0].mean()),
        "top5": float(hits.any(axis=1).mean()),
        **averages(labels, top[:, 0]),
    }


def averages(labels: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Averages precision, recall and F1 in three ways: ``precision_macro`` to ``f1_weighted``.

    Args:
        labels: (N,) classes, or (N, C) bool where a sample may have several.
        said: the same of what was predicted.
    """
    found: dict[str, float] = {}
    for average in AVERAGES:
        values = scores(labels, said, average)
        found |= {f"{k}_{average}": float(v) for k, v in zip(("precision", "recall", "f1"), values[:3], strict=True)}
    return found


def scores(labels: np.ndarray, said: np.ndarray, average: str | None) -> tuple:
    """Returns scikit-learn's precision, recall, F1 and support; 0 where undefined. Arguments as of :func:`averages`."""
    if labels.shape[1:] == (1,):  # scikit-learn takes a single column for two classes, yes and no
        return precision_recall_fscore_support(
            labels[:, 0], said[:, 0], labels=[True], average=average, zero_division=0
        )
    return precision_recall_fscore_support(labels, said, average=average, zero_division=0)


def confusion(predictions: Predictions, num_classes: int) -> np.ndarray:
    """Counts (num_classes, num_classes): row is the true class, column the predicted one."""
    cells = predictions.labels.astype(np.int64) * num_classes + predictions.top[:, 0]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Measures each class by a confusion matrix: ``support``, ``precision``, ``recall``, ``f1``; 0 where undefined."""
    hits = np.diag(counts).astype(float)
    support, predicted = counts.sum(axis=1), counts.sum(axis=0)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(hits), where=total > 0)
    return {"support": support, "precision": precision, "recall": recall, "f1": f1}
