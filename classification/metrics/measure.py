"""What is measured of a model, whatever kind of labels its images have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from classification.metrics.multi_label import multilabel_metrics
from classification.metrics.predictions import AnyPredictions, Predictions
from classification.metrics.single_label import metrics
from classification.metrics.thresholds import DEFAULT, tune_thresholds
from engine.errors import UserError


def check_top5(metric: str | None, num_classes: int) -> None:
    """Raises a :class:`UserError` if `evaluation.metric` tells nothing with so few classes."""
    if metric == "top5" and num_classes <= 5:
        raise UserError(
            f"evaluation.metric: top5 is always 1 with {num_classes} classes, so that the first checkpoint would stay "
            "the best; take top1 or loss"
        )


def find(predictions: AnyPredictions, thresholds: float | str) -> dict[str, Any]:
    """Finds what those who use the weights need of val's predictions: tuned ``thresholds``, a list of C, or nothing."""
    if isinstance(predictions, Predictions) or thresholds != "tuned":
        return {}
    return {"thresholds": tune_thresholds(predictions.labels, predictions.probabilities).tolist()}


def measure(predictions: AnyPredictions, thresholds: float | str, findings: Mapping[str, Any]) -> dict[str, float]:
    """Measures any split.

    With several labels an image and tuned thresholds, metrics that need thresholds are given twice: at 0.5 under their
    plain names, and at the thresholds of ``findings`` with ``_tuned`` behind, which flatters the model on val.

    Args:
        thresholds: `evaluation.thresholds`.
        findings: what :func:`find` found on val: just now during training, and afterwards the checkpoint's.
    """
    if isinstance(predictions, Predictions):
        return metrics(predictions)
    if isinstance(thresholds, str):
        tuned = findings.get("thresholds")
        return multilabel_metrics(predictions, DEFAULT, None if tuned is None else np.array(tuned))
    return multilabel_metrics(predictions, thresholds)
