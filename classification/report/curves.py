"""Precision over recall during training, for TensorBoard."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from classification.metrics.predictions import AnyPredictions, Predictions
from engine.plots.thresholds import MOST_CLASSES, counts_at_thresholds, of_classes


def board_curves(predictions: AnyPredictions, classes: list[str]) -> dict[str, NDArray[np.float64]]:
    """Computes precision over recall of all classes together and, if they are few, of each.

    With one label an image, a class is taken for guessed with the probability that it has among the most probable ones
    that are kept, else with none.
    """
    if not isinstance(predictions, Predictions):
        labels = predictions.labels
        return of_classes(classes, predictions.probabilities, labels, labels.sum(axis=0))
    labels, top, values = predictions.labels, predictions.top, predictions.probabilities
    if len(classes) > MOST_CLASSES:
        return {"all": counts_at_thresholds(values.ravel(), (top == labels[:, None]).ravel(), len(labels))}
    scores = np.zeros((len(labels), len(classes)))
    np.put_along_axis(scores, top, values, axis=1)
    right = np.eye(len(classes), dtype=bool)[labels]
    return of_classes(classes, scores, right, right.sum(axis=0))
