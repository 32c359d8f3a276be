"""Precision over recall, counted from a row of thresholds on."""

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from engine.plots.thresholds import MOST_CLASSES, THRESHOLDS, counts_at_thresholds, of_classes


def test_counts_are_those_of_scikit_learn_at_each_threshold() -> None:
    rng = np.random.default_rng(0)
    scores, right = rng.random(400), rng.random(400) < 0.3
    points = counts_at_thresholds(scores, right, int(right.sum()))
    assert points.shape == (6, THRESHOLDS)
    for place in (0, 20, 50, 99):
        said = scores >= place / (THRESHOLDS - 1)
        expected = [(said & right).sum(), (said & ~right).sum(), (~said & ~right).sum(), (~said & right).sum()]
        assert points[:4, place].tolist() == expected
        assert points[4, place] == pytest.approx(precision_score(right, said, zero_division=1.0))
        assert points[5, place] == pytest.approx(recall_score(right, said))


def test_what_is_never_guessed_counts_as_missed_and_nan_as_no_score() -> None:
    points = counts_at_thresholds(np.array([1.0, np.nan]), np.array([True, True]), 4)
    assert points[:, -1].tolist() == [1, 0, 0, 3, 1, 0.25]
    assert points[:, 0].tolist() == [2, 0, 0, 2, 1, 0.5]
    nothing = counts_at_thresholds(np.empty(0), np.empty(0, bool), 0)
    assert nothing[4:].tolist() == [[1.0] * THRESHOLDS, [0.0] * THRESHOLDS]


def test_few_classes_have_curves_of_their_own() -> None:
    right = np.array([[True, False], [True, False]])
    assert list(of_classes(["a", "b"], np.ones((2, 2)), right, right.sum(axis=0))) == ["all", "a"]
    many = [str(c) for c in range(MOST_CLASSES + 1)]
    assert list(of_classes(many, np.ones((2, 21)), np.ones((2, 21), bool), np.full(21, 2))) == ["all"]
