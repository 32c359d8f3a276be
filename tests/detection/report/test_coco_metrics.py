"""COCO's figures: pycocotools' to the last digits, and the cases that trip evaluations up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detection.report.coco_metrics import RECALLS, coco_evaluate
from detection.report.metric_names import METRICS
from tests.detection.results import by_pycocotools, predictions, random_results, truth

A, B = [10, 10, 60, 50], [100, 100, 180, 190]


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"classes": 1, "crowds": 0.0},
        {"classes": 12, "objects": 15},
        {"images": 2, "detections": 900},
        {"crowds": 0.5},
        {"objects": 3},
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_all_figures_are_those_of_pycocotools(case, seed):
    known, found = random_results(seed, **case)
    expected = by_pycocotools(found, known)
    result = coco_evaluate(found, known)
    assert tuple(result.metrics) == METRICS
    theirs = [math.nan if value == -1 else value for value in expected.stats]
    np.testing.assert_allclose(list(result.metrics.values()), theirs, rtol=0, atol=1e-6)
    order = np.argsort(known.category_ids)  # pycocotools sorts its classes by id
    precision = expected.eval["precision"]
    for place, label in enumerate(order):
        values = precision[:, :, place, 0, 2]
        own = result.per_class["AP"][label]
        assert own == pytest.approx(values.mean(), abs=1e-6) if values.max() > -1 else math.isnan(own)
        curve = precision[0, :, place, 0, 2]
        np.testing.assert_allclose(np.nan_to_num(result.precision[label], nan=-1), curve, rtol=0, atol=1e-6)
    assert 0 <= result.metrics["AP"] < result.metrics["AP50"] < 1 or case.get("objects") == 3


def test_perfect_predictions_score_one_under_sparse_ids_in_any_order():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 80, (40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 110, (40, 2))], axis=1)
    labels, owners = rng.integers(4, size=40), rng.integers(9, size=40)
    known = truth(10, boxes, labels, owners, ids=[90, 7, 1, 55])
    found = predictions(10, boxes, labels, rng.uniform(0.3, 1, 40), owners)
    metrics = coco_evaluate(found, known).metrics
    assert metrics["AP"] == metrics["AP50"] == metrics["AP75"] == metrics["AR_100"] == 1.0
    assert all(metrics[f"AP_{size}"] == 1.0 for size in ("small", "medium", "large"))


def test_no_detections_score_zero():
    known = truth(3, [A, B], [0, 1], [0, 2])
    metrics = coco_evaluate(predictions(3), known).metrics
    assert {name: value for name, value in metrics.items() if not math.isnan(value)} == {
        name: 0.0 for name in METRICS if name not in ("AP_small", "AP_large", "AR_small", "AR_large")
    }


def test_what_nothing_is_known_of_is_not_a_number_and_does_not_count():
    known = truth(2, [A], [1], [0])
    result = coco_evaluate(predictions(2, [A, B], [1, 2], [0.9, 0.8], [0, 1]), known)
    assert np.isnan(result.per_class["AP"]).tolist() == [True, False, True]
    assert result.per_class["objects"].tolist() == [0, 1, 0]
    assert result.metrics["AP"] == 1.0 and math.isnan(result.metrics["AP_large"])
    empty = coco_evaluate(predictions(2, [A], [1], [0.9], [0]), truth(2)).metrics
    assert all(math.isnan(value) for value in empty.values())
    nothing = coco_evaluate(predictions(2), truth(2)).metrics
    assert all(math.isnan(value) for value in nothing.values())


def test_detections_in_a_crowd_cost_nothing():
    known = truth(1, [A, [80, 80, 200, 200]], [0, 0], [0, 0], crowd=[False, True])
    inside = [[90 + x, 90, 110 + x, 120] for x in range(0, 60, 20)]
    found = predictions(1, [A, *inside], [0] * 4, [0.5, 0.9, 0.8, 0.7], [0] * 4)
    result = coco_evaluate(found, known)
    assert result.metrics["AP"] == 1.0 and result.per_class["objects"][0] == 1


def test_a_curve_falls_where_precision_does():
    known = truth(1, [A, B], [0, 0], [0, 0])
    found = predictions(1, [A, [0, 150, 40, 190], B], [0] * 3, [0.9, 0.8, 0.7], [0] * 3)
    curve = coco_evaluate(found, known).precision[0]
    assert curve[RECALLS <= 0.5].tolist() == [1.0] * 51
    assert curve[RECALLS > 0.5] == pytest.approx(2 / 3)
