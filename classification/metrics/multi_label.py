"""Metrics of samples with any number of labels, computed once, on all samples."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, hamming_loss

from classification.metrics.predictions import MultiLabelPredictions
from classification.metrics.single_label import averages, scores


def multilabel_metrics(
    predictions: MultiLabelPredictions, thresholds: np.ndarray | float = 0.5, tuned: np.ndarray | None = None
) -> dict[str, float]:
    """Returns :data:`classification.metrics.names.MULTILABEL_METRICS`: fractions in [0, 1], and the mean loss.

    ``mAP`` is the mean over classes of the area under the precision-recall curve; classes without positives have none
    and are left out. Other macro values are means over all classes; what would divide by nothing is 0.
    A model that has diverged, to probabilities that are NaN, says nothing: then ``mAP`` is NaN.

    Args:
        thresholds: probabilities from which on a label is said, one for all or (C,).
        tuned: thresholds (C,) that were tuned; metrics at these are called ``f1_macro_tuned`` and so on. On the
            images they were tuned on, these are too good: they show what tuning is worth, not what is to be expected.
    """
    labels, occurs = predictions.labels, predictions.labels.any(axis=0)
    metrics = {
        "loss": float(predictions.losses.mean()),
        "mAP": float(_average_precisions(labels, predictions.probabilities)[occurs].mean()) if occurs.any() else 0.0,
        **_decision_metrics(labels, predictions.probabilities >= thresholds),
    }
    if tuned is not None:
        at_tuned = _decision_metrics(labels, predictions.probabilities >= tuned)
        metrics |= {f"{name}_tuned": value for name, value in at_tuned.items()}
    return metrics


def multilabel_per_class(
    predictions: MultiLabelPredictions, thresholds: np.ndarray | float = 0.5
) -> dict[str, np.ndarray]:
    """Measures each class, (C,): ``support`` (positives), ``threshold``, ``precision``, ``recall``, ``f1`` at it, and
    ``average_precision``; 0 where undefined.
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    precision, recall, f1, support = scores(labels, probabilities >= thresholds, average=None)
    return {
        "support": support,
        "threshold": np.broadcast_to(thresholds, support.shape).astype(np.float64),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "average_precision": _average_precisions(labels, probabilities),
    }


def _average_precisions(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(C,); 0 for classes without positives, NaN where a probability is."""
    found = np.where(np.isnan(probabilities).any(axis=0), np.nan, 0.0)
    for c in np.flatnonzero((found == 0) & labels.any(axis=0)):
        found[c] = average_precision_score(labels[:, c], probabilities[:, c])
    return found


def _decision_metrics(labels: np.ndarray, said: np.ndarray) -> dict[str, float]:
    return {
        "hamming_loss": float(hamming_loss(labels, said)),
        "subset_accuracy": float(accuracy_score(labels, said)),
        **averages(labels, said),
    }
