"""How often classes and images are drawn, over epochs, and that nothing but seed and epoch decides it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.data.batch_plan import NaturalOrder
from engine.datasets.labelled import FileImages
from engine.datasets.sampling import build_order, shares
from engine.datasets.sections import DigitsData

SIZES = np.array([50, 1, 9, 4])


def images(labels=None) -> FileImages:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), SIZES)) if labels is None else labels
    count = labels.shape[1] if labels.ndim == 2 else 4
    return FileImages(Path("/"), [str(k) for k in range(count)], labels, map(str, range(len(labels))))


def order(seed=0, own=None, **keys):
    return build_order(DigitsData(source="digits", **keys), own or images(), seed)


def test_natural_is_each_image_once():
    assert order() == NaturalOrder(64, 0)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"sampling": "balanced"}, [16, 16, 16, 16]),
        ({"sampling": "square_root"}, [34, 5, 15, 10]),  # of 34.62, 4.90, 14.69, 9.79 the last three are rounded up
        ({"oversample": 0.1}, [50, 5, 9, 5]),
        ({"oversample": 1.0}, [50, 50, 50, 50]),
    ],
)
def test_draws_of_each_class(keys, expected):
    made = order(**keys)
    for epoch in (0, 1, 7):
        drawn = made(epoch)
        assert len(drawn) == made.num_samples == sum(expected)
        assert np.bincount(images().labels[drawn]).tolist() == expected


@pytest.mark.parametrize("keys", [{"sampling": "balanced"}, {"sampling": "square_root"}, {"oversample": 0.3}])
def test_images_of_a_class_are_drawn_equally_often(keys):
    made, labels = order(**keys), images().labels
    times = np.zeros(64, int)
    for epoch in range(9):
        times += np.bincount(made(epoch), minlength=64)
        for label in range(4):
            assert np.ptp(times[labels == label]) <= 1
    assert times.min() > 0


def test_an_epoch_follows_from_seed_and_number_alone():
    first, again = order(sampling="balanced"), order(sampling="balanced")
    later = again(5)
    assert (first(5) == later).all() and (first(5) == first(5)).all()
    assert (first(5) != first(6)).any()
    assert (order(seed=1, sampling="balanced")(5) != later).any()


def test_an_epoch_is_shuffled():
    drawn = images().labels[order(sampling="balanced")(0)]
    assert 30 < np.count_nonzero(np.diff(drawn)) < 62  # of 63 neighbours, three in four differ


def test_oversampling_drops_nothing():
    assert set(order(oversample=0.5)(0).tolist()) == set(range(64))


def test_of_several_labels_the_rarest_counts():
    labels = np.zeros((20, 3), np.uint8)
    labels[:18, 0], labels[:4, 1], labels[:1, 2] = 1, 1, 1  # two images are of no class
    drawn = order(own=images(labels), sampling="balanced")(0)
    assert [np.isin(drawn, rows).sum() for rows in (range(4, 18), range(1, 4), [0], [18, 19])] == [5, 5, 5, 5]


def test_shares_keep_the_sum():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(0, 40, 30)
        for weights in (np.sign(sizes), np.sqrt(sizes)):
            found = shares(sizes, weights)
            assert found.sum() == sizes.sum()
            assert ((found > 0) == (sizes > 0)).all()
            assert np.abs(found - weights / weights.sum() * sizes.sum()).max() < 1
