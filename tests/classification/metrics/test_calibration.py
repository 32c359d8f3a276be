"""The calibration error against a formula written out, and classes by their training images."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from classification.metrics.by_class_size import by_size, size_bins
from classification.metrics.calibration import calibration
from classification.metrics.predictions import Predictions
from classification.metrics.sections import ClassificationEvaluationConfig


@pytest.mark.parametrize("groups", [1, 10, 15])
def test_the_error_is_that_of_guo_et_al(groups):
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.random(997), [0.0, 1.0, 0.2, 0.4]])
    right = rng.random(1001) < confidence**2
    error = 0.0
    for m in range(groups):
        inside = [i for i, p in enumerate(confidence) if m / groups < p <= (m + 1) / groups or (m == 0 and p == 0)]
        if inside:
            accuracy = sum(bool(right[i]) for i in inside) / len(inside)
            error += len(inside) / 1001 * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
    found = calibration(confidence, right, groups)
    assert found.error == pytest.approx(error, abs=1e-12)
    assert found.counts.sum() == 1001


def test_groups_without_images_count_nothing():
    found = calibration(np.array([0.95, 0.95]), np.array([True, False]), 10)
    assert found.error == pytest.approx(0.45)
    assert np.isnan(found.accuracy[:9]).all() and found.accuracy[9] == 0.5


def test_each_class_is_in_the_group_of_its_training_images():
    found = size_bins([2, 10, 100, 500], np.array([1, 2, 9, 10, 99, 100, 499, 500, 7000]))
    assert {name: classes.tolist() for name, classes in found.items()} == {
        "0-1": [0], "2-9": [1, 2], "10-99": [3, 4], "100-499": [5, 6], "500+": [7, 8],
    }  # fmt: skip
    assert list(size_bins([2, 3], np.array([7]))) == ["2", "3+"]


def test_accuracy_of_a_group_is_over_its_images_and_recall_over_its_classes():
    labels = np.array([0, 0, 0, 1, 2])
    top = np.array([[0, 1], [0, 2], [1, 2], [0, 1], [2, 1]])
    predictions = Predictions(labels, top, np.full((5, 2), 0.5), np.zeros(5))
    table = {"recall": np.array([2 / 3, 0.0, 1.0, 0.0]), "support": np.array([3, 1, 1, 0])}
    rows = by_size(size_bins([2, 10], np.array([5, 5, 20, 3])), predictions, table)
    assert rows == [
        {
            "train_images": "2-9",
            "classes": 3,
            "images": 4,
            "top1": 0.5,
            "top5": 0.75,
            "recall_macro": pytest.approx(1 / 3),
        },
        {"train_images": "10+", "classes": 1, "images": 1, "top1": 1.0, "top5": 1.0, "recall_macro": 1.0},
    ]
    assert by_size(size_bins([2, 50], np.array([5, 5, 20, 3])), predictions, table)[1]["top1"] is None


def test_bounds_of_groups_have_to_increase():
    with pytest.raises(ValidationError, match=r"the bounds must increase, not \[10, 2\]"):
        ClassificationEvaluationConfig(size_bins=[10, 2])
