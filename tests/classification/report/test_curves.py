"""Precision over recall of classifications, for TensorBoard."""

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from classification.metrics.predictions import MultiLabelPredictions, Predictions
from classification.report.curves import board_curves
from engine.plots.thresholds import MOST_CLASSES


def predictions(classes: int, count: int = 200) -> tuple[Predictions, np.ndarray]:
    """Of random probabilities, (N, C), of which the five largest are kept."""
    rng = np.random.default_rng(1)
    values = rng.dirichlet(np.full(classes, 0.5), count)
    top = np.argsort(-values, axis=1)[:, :5]
    labels = rng.integers(classes, size=count)
    return Predictions(labels, top, np.take_along_axis(values, top, axis=1), np.zeros(count)), values


def test_each_class_of_few_is_one_against_the_rest() -> None:
    made, values = predictions(4)
    curves = board_curves(made, ["a", "b", "c", "d"])
    assert list(curves) == ["all", "a", "b", "c", "d"]
    said = values[:, 2] >= 0.5
    assert curves["c"][4, 50] == pytest.approx(precision_score(made.labels == 2, said, zero_division=1.0))
    assert curves["c"][5, 50] == pytest.approx(recall_score(made.labels == 2, said))
    assert curves["all"][0, 50] == (values[np.arange(200), made.labels] >= 0.5).sum()
    assert curves["all"][:4].sum(axis=0).tolist() == [800.0] * 101, "every pair of image and class is counted once"


def test_of_many_classes_all_are_shown_together() -> None:
    made, _ = predictions(MOST_CLASSES + 30)
    curves = board_curves(made, [str(c) for c in range(MOST_CLASSES + 30)])
    assert list(curves) == ["all"]
    kept = (made.top == made.labels[:, None]).any(axis=1)
    assert curves["all"][0, 0] == kept.sum() and curves["all"][3, 0] == (~kept).sum()


def test_several_labels_an_image_are_counted_by_label() -> None:
    rng = np.random.default_rng(2)
    labels, values = rng.random((50, 3)) < 0.4, rng.random((50, 3))
    curves = board_curves(MultiLabelPredictions(labels, values, np.zeros(50)), ["a", "b", "c"])
    assert curves["b"][5, 30] == pytest.approx(recall_score(labels[:, 1], values[:, 1] >= 0.3))
    assert curves["all"][4, 30] == pytest.approx(precision_score(labels.ravel(), values.ravel() >= 0.3))
