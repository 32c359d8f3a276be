"""From which probability on a label counts as said: one threshold a class, tuned on held-out images."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

DEFAULT = 0.5
"""The threshold of a class that has none of its own: at this probability yes is as likely as no."""


def tune_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Finds each class's threshold, (C,) float64 in [0, 1], that maximises its F1; all cut points are tried.

    A label is said where its probability is at least the threshold. Any threshold between two neighbouring
    probabilities decides alike, so a cut is placed half-way between them, or at 0.5 where that lies between. Of cuts
    with the same F1 the one nearest to 0.5 is taken, of two as near the higher. A class without positives keeps 0.5,
    and so does one with a probability that is NaN.

    Args:
        labels: (N, C) bool.
        probabilities: (N, C) in [0, 1].
    """
    pairs = zip(labels.T, probabilities.T, strict=True)
    return np.array([_best_threshold(column, values) for column, values in pairs], np.float64)


def thresholds_in_use(setting: float | str, findings: Mapping[str, Any], num_classes: int) -> np.ndarray:
    """Returns the thresholds with which a trained model says labels, (C,).

    Args:
        setting: ``evaluation.thresholds``.
        findings: what the checkpoint's last evaluation has found, ``saved["run"]["findings"]``.
    """
    if not isinstance(setting, str):
        return np.full(num_classes, setting, np.float64)
    if "thresholds" not in findings:
        log.warning("no thresholds in the checkpoint: it was saved before the first evaluation; using %g", DEFAULT)
    return np.array(findings.get("thresholds", [DEFAULT] * num_classes), np.float64)


def _best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Finds that of one class, from labels (N,) and probabilities (N,)."""
    positives = int(labels.sum())
    if not positives or np.isnan(probabilities).any():
        return DEFAULT
    order = np.argsort(-probabilities, kind="stable")
    values, hits = probabilities[order].astype(np.float64), np.cumsum(labels[order])
    last = np.flatnonzero(np.append(values[1:] < values[:-1], True))  # equal probabilities are said together
    f1 = 2 * hits[last] / (last + 1 + positives)
    least_said = values[last]
    most_unsaid = np.append(values[last[:-1] + 1], 0.0)
    middles = (least_said + most_unsaid) / 2
    middles = np.where(middles > most_unsaid, middles, least_said)  # neighbouring numbers have nothing between them
    middles = np.where((most_unsaid < DEFAULT) & (least_said >= DEFAULT), DEFAULT, middles)
    best = middles[f1 == f1.max()]  # highest first
    return float(best[np.argmin(np.abs(best - DEFAULT))])
