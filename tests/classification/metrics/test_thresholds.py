"""Tuned thresholds against trying every one, and what decides where several are best."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from classification.metrics.thresholds import thresholds_in_use, tune_thresholds


def best_by_trying(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The best F1 that any threshold reaches."""
    tried = [*probabilities, *(probabilities + 1e-9), 0.0, 1.1]
    return max(f1_score(labels, probabilities >= threshold, zero_division=0) for threshold in tried)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better(seed):
    rng = np.random.default_rng(seed)
    labels = rng.random((23, 4)) < [0.1, 0.3, 0.5, 0.9]
    labels[0] = True
    probabilities = np.clip(0.3 * labels + rng.random((23, 4)), 0, 1)
    if seed % 2:
        probabilities = probabilities.round(1)  # with many equal ones
    found = tune_thresholds(labels, probabilities)
    for column in range(4):
        said = probabilities[:, column] >= found[column]
        assert f1_score(labels[:, column], said) == best_by_trying(labels[:, column], probabilities[:, column])


def tuned(labels: list[int], probabilities: list[float]) -> float:
    return float(tune_thresholds(np.array(labels, bool)[:, None], np.array(probabilities)[:, None])[0])


@pytest.mark.parametrize(
    ("labels", "probabilities", "threshold"),
    [
        ([0, 0, 0], [0.1, 0.9, 0.4], 0.5),  # nothing to tune on
        ([1, 1, 1], [0.6, 0.9, 0.8], 0.5),  # all are said at 0.5
        ([1, 1, 1], [0.25, 0.9, 0.75], 0.125),  # all are to be said: half-way to 0
        ([0, 1, 1], [0.25, 0.5, 0.75], 0.5),  # 0.5 itself is said
        ([0, 0, 1], [0.125, 0.5, 0.75], 0.625),  # half-way
        ([0, 0, 1], [0.1, 0.2, 0.9], 0.5),  # 0.5 is among the best
        ([1, 0, 1, 0], [0.0, 0.0, 0.0, 0.0], 0.0),  # equal ones are said together
        ([0, 1], [np.nextafter(0.3, 0), 0.3], 0.3),  # nothing lies between
        ([1, 0, 0, 1], [0.875, 0.75, 0.625, 0.5], 0.5),  # F1 is 2/3 with one said or all four: 0.5 over 0.8125
        ([1, 0, 0, 1], [0.9375, 0.8125, 0.6875, 0.125], 0.875),  # the same: 0.875 is as near 0.5 as 0.0625 is not
    ],
)
def test_where_a_threshold_is_placed(labels, probabilities, threshold):
    assert tuned(labels, probabilities) == threshold


def test_of_two_as_near_the_higher_is_taken():
    """With one said or four F1 is 2/3, and half-way lie 0.75 and 0.25."""
    assert tuned([1, 0, 0, 1, 0], [0.875, 0.625, 0.5625, 0.375, 0.125]) == 0.75


def test_the_order_of_images_does_not_matter():
    rng = np.random.default_rng(3)
    labels, probabilities = rng.random((40, 6)) < 0.3, rng.random((40, 6)).round(1)
    order = rng.permutation(40)
    assert (tune_thresholds(labels, probabilities) == tune_thresholds(labels[order], probabilities[order])).all()


def test_thresholds_in_use(caplog):
    assert thresholds_in_use(0.3, {"thresholds": [0.1, 0.2]}, 2).tolist() == [0.3, 0.3]
    assert thresholds_in_use("tuned", {"thresholds": [0.1, 0.2]}, 2).tolist() == [0.1, 0.2]
    assert not caplog.text
    assert thresholds_in_use("tuned", {}, 2).tolist() == [0.5, 0.5]
    assert "before the first evaluation" in caplog.text
