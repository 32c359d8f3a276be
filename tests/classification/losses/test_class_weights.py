"""Weights of classes against numbers computed by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from classification.losses.class_weights import check_counts, class_weights, log_priors, per_class, positive_weights
from engine.errors import UserError

COUNTS = np.array([1, 3, 12])  # N = 16, C = 3


def test_inverse():
    """1, 1/3, 1/12 are 12/12, 4/12, 1/12: shares 12/17, 4/17, 1/17 of 3."""
    expected = [36 / 17, 12 / 17, 3 / 17]
    np.testing.assert_allclose(class_weights("inverse", COUNTS, 0.999), expected, rtol=1e-12)


def test_log():
    """N/(n C) is 16/3, 16/9, 16/36; plus one 19/3, 25/9, 52/36."""
    logs = [log(19 / 3), log(25 / 9), log(52 / 36)]
    expected = [3 * value / sum(logs) for value in logs]
    np.testing.assert_allclose(class_weights("log", COUNTS, 0.999), expected, rtol=1e-12)


def test_effective_number():
    """With beta 1/2: 1 - beta^n is 1/2, 7/8, 4095/4096, and the weights go as 1, 4/7, 2048/4095."""
    raw = [1, 4 / 7, 2048 / 4095]
    expected = [3 * value / sum(raw) for value in raw]
    np.testing.assert_allclose(class_weights("effective_number", COUNTS, 0.5), expected, rtol=1e-12)


def test_effective_number_lies_between_none_and_inverse():
    none = class_weights("effective_number", COUNTS, 0.0)
    np.testing.assert_allclose(none, class_weights("none", COUNTS, 0.999))
    nearly = class_weights("effective_number", COUNTS, 1 - 1e-12)
    np.testing.assert_allclose(nearly, class_weights("inverse", COUNTS, 0.999), rtol=1e-6)
    many = class_weights("effective_number", np.array([10**6, 10**7]), 0.999)
    np.testing.assert_allclose(many, 1.0)


@pytest.mark.parametrize("kind", ["none", "inverse", "effective_number", "log"])
def test_equal_classes_weigh_one_and_all_sum_to_their_number(kind):
    np.testing.assert_allclose(class_weights(kind, np.array([7, 7, 7, 7]), 0.99), 1.0, rtol=1e-12)
    counts = np.random.default_rng(0).integers(2, 900, 1758)
    weights = class_weights(kind, counts, 0.999)
    assert weights.sum() == pytest.approx(1758)
    by_count = weights[np.argsort(counts)]
    assert (np.diff(by_count) <= 0).all(), "the fewer images, the more each counts"


def test_positive_weights_and_priors():
    np.testing.assert_allclose(positive_weights(np.array([1, 5, 10]), 10), [9, 1, 0.1])
    np.testing.assert_allclose(np.exp(log_priors(COUNTS)), [1 / 16, 3 / 16, 12 / 16])


def test_classes_without_images_are_named():
    check_counts(COUNTS, ["a", "b", "c"], "loss.class_weights: log")
    with pytest.raises(UserError, match=r"loss.class_weights: log: .*without any: b, c; add images"):
        check_counts(np.array([3, 0, 0]), ["a", "b", "c"], "loss.class_weights: log")
    with pytest.raises(UserError, match="and 5 more"):
        check_counts(np.zeros(15, np.int64), [f"class {i}" for i in range(15)], "loss.class_weights: log")


def test_a_number_a_class():
    assert per_class(0.25, ["a", "b"], "loss.alpha").tolist() == [0.25, 0.25]
    assert per_class([1.0, 2.0], ["a", "b"], "loss.alpha").tolist() == [1.0, 2.0]
    with pytest.raises(UserError, match=r"loss.alpha: 3 numbers for 2 classes"):
        per_class([1.0, 2.0, 3.0], ["a", "b"], "loss.alpha")
