from __future__ import annotations

import math

import numpy as np

from detection.report.confusion import confuse, pair
from tests.detection.results import predictions, random_results, truth

A, B, FAR = [10, 10, 60, 50], [100, 100, 180, 190], [0, 150, 40, 190]


def test_what_is_taken_for_what():
    known = truth(2, [A, B, A], [0, 1, 2], [0, 0, 1])
    found = predictions(2, [A, B, FAR], [0, 2, 1], [0.9, 0.8, 0.7], [0, 0, 0])
    result = confuse(found, known)
    expected = np.zeros((4, 4), int)
    expected[0, 0] = expected[1, 2] = expected[3, 1] = expected[2, 3] = 1
    assert (result.counts == expected).all()
    assert (result.hits.tolist(), result.wrong.tolist(), result.missed.tolist()) == ([1, 0], [2, 0], [1, 1])
    assert result.f1.tolist() == [2 / 5, 0.0]


def test_doubles_unsure_ones_and_crowds():
    known = truth(1, [A, [80, 80, 200, 200]], [0, 0], [0, 0], crowd=[False, True])
    found = predictions(1, [A, A, [90, 90, 120, 120], FAR], [0] * 4, [0.9, 0.8, 0.7, 0.2], [0] * 4)
    result = confuse(found, known)
    assert (result.counts[0, 0], result.counts[3, 0], result.counts.sum()) == (1, 1, 2)


def test_images_with_nothing_on_them_have_no_score():
    result = confuse(predictions(3, [A], [0], [0.9], [1]), truth(3))
    assert math.isnan(result.f1[0]) and result.f1[1] == 0 and math.isnan(result.f1[2])


def test_the_best_detection_chooses_first():
    iou = np.array([[0.6, 0.7], [0.9, 0.8], [0.9, 0.9]])
    assert pair(iou, 0.5).tolist() == [1, 0, -1]
    assert pair(np.zeros((2, 0)), 0.5).tolist() == [-1, -1]


def test_every_object_and_every_detection_is_counted_once():
    known, found = random_results(5, crowds=0.0)
    result = confuse(found, known, score=0.3)
    objects = np.bincount(known.labels, minlength=3)
    assert (result.counts[:3].sum(axis=1) == objects).all()
    detections = np.bincount(found.labels[found.scores >= 0.3], minlength=3)
    assert (result.counts[:, :3].sum(axis=0) == detections).all()
    assert (result.hits + result.missed).sum() == objects.sum() and np.trace(result.counts[:3, :3]) == result.hits.sum()
