"""Classification metrics from per-sample results, computed once, on all samples."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from classification.predictions import Predictions

METRICS: tuple[str, ...] = ("loss", "top1", "top5", "precision_macro", "recall_macro", "f1_macro", "f1_micro")
"""What :func:`metrics` returns."""


def metrics(predictions: Predictions) -> dict[str, float]:
    """Fractions in [0, 1], and the mean loss.

    ``top5`` is the share of samples whose class is among the five most probable (all of them, if there are fewer).
    Macro values are plain means over the classes that occur among labels or predictions, as scikit-learn takes them;
    a class that is never predicted has precision 0.
    """
    labels, top = predictions.labels, predictions.top
    hits = top == labels[:, None]
    macro = precision_recall_fscore_support(labels, top[:, 0], average="macro", zero_division=0)
    micro = precision_recall_fscore_support(labels, top[:, 0], average="micro", zero_division=0)
    return {
        "loss": float(predictions.losses.mean()),
        "top1": float(hits[:, 0].mean()),
        "top5": float(hits.any(axis=1).mean()),
        "precision_macro": float(macro[0]),
        "recall_macro": float(macro[1]),
        "f1_macro": float(macro[2]),
        "f1_micro": float(micro[2]),
    }


def confusion(predictions: Predictions, num_classes: int) -> np.ndarray:
    """Counts (num_classes, num_classes): row is the true class, column the predicted one."""
    return confusion_matrix(predictions.labels, predictions.top[:, 0], labels=np.arange(num_classes))


def per_class(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Per class, from a confusion matrix: ``support``, ``precision``, ``recall``, ``f1`` (0 where undefined)."""
    hits = np.diag(counts).astype(float)
    support, predicted = counts.sum(axis=1), counts.sum(axis=0)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(hits), where=total > 0)
    return {"support": support, "precision": precision, "recall": recall, "f1": f1}
