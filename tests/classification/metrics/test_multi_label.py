"""Metrics against scikit-learn's on all samples at once, with 1 and 2 ranks and for both kinds of labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn import metrics as sklearn

from classification.metrics.measure import find, measure
from classification.metrics.multi_label import (
    multilabel_metrics,
    multilabel_per_class,
)
from classification.metrics.names import DECISION_METRICS, METRICS, MULTILABEL_METRICS, TUNED_METRICS, measured
from classification.metrics.predictions import (
    MultiLabelPredictions,
    Predictions,
    gather,
    gather_multilabel,
    multilabel_rows,
    rows,
)
from classification.metrics.single_label import metrics
from classification.metrics.thresholds import tune_thresholds
from engine.distributed.ranks import Ranks
from tests.distributed import run_ranks
from tests.engine.toy import SINGLE

CLASSES, BLOCK = 7, 16


def outputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of 101 samples: one label (N,), several labels (N, 7), logits (N, 7) and losses (N,)."""
    generator = torch.Generator().manual_seed(8)
    label = torch.randint(0, CLASSES, (101,), generator=generator)
    labels = torch.rand(101, CLASSES, generator=generator) < torch.linspace(0.05, 0.9, CLASSES)
    logits = 2 * torch.randn(101, CLASSES, generator=generator) + 2 * labels - 1
    logits[torch.arange(101), label] += 1.0
    return label, labels.float(), logits, torch.rand(101, dtype=torch.float64, generator=generator)


def on_this_rank(ranks: Ranks) -> dict[str, dict[str, float]]:
    """Both kinds of metrics, of predictions made of every ``world_size``-th block."""
    label, labels, logits, losses = outputs()
    index = torch.arange(101)
    blocks = [index[first : first + BLOCK] for first in range(ranks.rank * BLOCK, 101, ranks.world_size * BLOCK)]
    single = gather([rows(i, label[i], logits[i], losses[i]) for i in blocks], CLASSES, ranks)
    parts = [multilabel_rows(i, labels[i], logits[i], losses[i]) for i in blocks]
    several = gather_multilabel(parts, CLASSES, ranks)
    return {"single": measure(single, "tuned", {}), "several": measure(several, "tuned", find(several, "tuned"))}


@pytest.mark.parametrize("world_size", [1, 2])
def test_every_metric_is_scikit_learns(world_size):
    label, labels, logits, losses = (tensor.numpy() for tensor in outputs())
    expected = {"loss": losses.mean()}
    p, top = softmax(logits.astype(np.float64), axis=1), logits.argmax(axis=1)
    single = {
        **expected,
        "top1": sklearn.accuracy_score(label, top),
        "top5": sklearn.top_k_accuracy_score(label, p, k=5),
        **averages(label, top),
    }
    p = expit(logits.astype(np.float64))
    several = {**expected, "mAP": sklearn.average_precision_score(labels, p), **decisions(labels, p >= 0.5)}
    tuned = decisions(labels, p >= tune_thresholds(labels.astype(bool), p))
    several |= {f"{name}_tuned": value for name, value in tuned.items()}
    everywhere = run_ranks(2, on_this_rank) if world_size == 2 else [on_this_rank(SINGLE)]
    for found in everywhere:
        assert found["single"] == pytest.approx(single, abs=1e-9, rel=0)
        assert found["several"] == pytest.approx(several, abs=1e-9, rel=0)
        assert list(found["single"]) == list(METRICS)
        assert set(found["several"]) == {
            *MULTILABEL_METRICS,
            *TUNED_METRICS,
        }
    assert everywhere[0] == everywhere[-1]


def averages(labels: np.ndarray, said: np.ndarray) -> dict[str, float]:
    functions = {"precision": sklearn.precision_score, "recall": sklearn.recall_score, "f1": sklearn.f1_score}
    return {
        f"{name}_{average}": function(labels, said, average=average, zero_division=0)
        for average in ("macro", "micro", "weighted")
        for name, function in functions.items()
    }


def decisions(labels: np.ndarray, said: np.ndarray) -> dict[str, float]:
    return {
        "hamming_loss": sklearn.hamming_loss(labels, said),
        "subset_accuracy": sklearn.accuracy_score(labels, said),
        **averages(labels, said),
    }


def several(labels: list[list[int]], probabilities: list[list[float]]) -> MultiLabelPredictions:
    return MultiLabelPredictions(np.array(labels, bool), np.array(probabilities), np.zeros(len(labels)))


SMALL = several(
    [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], [[0.9, 0.2, 0.4], [0.3, 0.7, 0.1], [0.6, 0.5, 0], [0, 0, 0]]
)


def test_metrics_counted_by_hand():
    """Said: a, b, a and b, none. a: 1 of 2 right, 1 of 2 found; b: 2 of 2 and 2 of 2; c: nothing."""
    found = multilabel_metrics(SMALL)
    assert found["hamming_loss"] == pytest.approx(2 / 12)
    assert found["subset_accuracy"] == pytest.approx(2 / 4)
    assert found["precision_macro"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["precision_micro"] == found["recall_micro"] == pytest.approx(3 / 4)
    assert found["f1_weighted"] == pytest.approx((2 * 1 / 2 + 2 * 1) / 4)
    assert found["mAP"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2), "classes without positives are left out"
    assert set(found) == set(MULTILABEL_METRICS)


def test_thresholds_of_each_class_decide():
    at = multilabel_metrics(SMALL, np.array([0.3, 0.5, 0.5]))
    assert at["recall_macro"] == pytest.approx(2 / 3)
    both = multilabel_metrics(SMALL, 0.5, np.array([0.3, 0.5, 0.5]))
    assert {name: both[f"{name}_tuned"] for name in DECISION_METRICS} == {name: at[name] for name in DECISION_METRICS}
    assert {name: both[name] for name in MULTILABEL_METRICS} == multilabel_metrics(SMALL)


def test_a_row_a_class():
    table = multilabel_per_class(SMALL, np.array([0.3, 0.5, 0.5]))
    assert table["support"].tolist() == [2, 2, 0]
    assert table["threshold"].tolist() == [0.3, 0.5, 0.5]
    np.testing.assert_allclose(table["precision"], [2 / 3, 1, 0])
    np.testing.assert_allclose(table["recall"], [1, 1, 0])
    np.testing.assert_allclose(table["f1"], [0.8, 1, 0])
    np.testing.assert_allclose(table["average_precision"], [5 / 6, 1, 0])
    assert multilabel_per_class(SMALL)["threshold"].tolist() == [0.5] * 3


def test_a_single_label_is_not_taken_for_two_classes():
    found = multilabel_metrics(several([[1], [1], [0], [0]], [[0.9], [0.2], [0.6], [0.1]]))
    assert found["precision_macro"] == found["recall_micro"] == found["f1_weighted"] == 0.5
    assert found["hamming_loss"] == 0.5
    assert multilabel_per_class(several([[1], [0]], [[0.9], [0.2]]))["f1"].tolist() == [1.0]


def test_images_without_any_label_are_measured():
    found = multilabel_metrics(several([[0, 0], [0, 0]], [[0.1, 0.2], [0.3, 0.4]]), 0.5, np.array([0.5, 0.5]))
    assert found["mAP"] == found["f1_macro"] == 0.0 and found["subset_accuracy"] == 1.0


def test_a_model_that_has_diverged_is_measured():
    broken = several([[1, 0], [0, 1]], [[np.nan, 0.2], [0.3, 0.4]])
    found = measure(broken, "tuned", find(broken, "tuned"))
    assert np.isnan(found["mAP"]) and found["recall_micro"] == 0.0
    assert find(broken, "tuned")["thresholds"][0] == 0.5


def test_predictions_come_in_the_order_of_the_data_set_whatever_the_batches():
    _, labels, logits, losses = outputs()
    order = torch.randperm(101, generator=torch.Generator().manual_seed(5))
    parts = [multilabel_rows(i, labels[i], logits[i], losses[i]) for i in order.split(33)]
    found = gather_multilabel(parts, CLASSES, SINGLE)
    assert found.labels.dtype == bool and (found.labels == labels.bool().numpy()).all()
    assert found.probabilities.dtype == np.float64
    np.testing.assert_allclose(found.probabilities, expit(logits.double().numpy()), rtol=1e-14)
    assert (found.losses == losses.numpy()).all()
    with pytest.raises(AssertionError, match="evaluated twice"):
        gather_multilabel([*parts, parts[0]], CLASSES, SINGLE)
    assert gather_multilabel([], CLASSES, SINGLE).labels.shape == (0, CLASSES)


def test_what_is_measured_follows_from_labels_and_thresholds():
    single = Predictions(np.array([0, 1]), np.array([[0, 1], [0, 1]]), np.array([[0.6, 0.4]] * 2), np.zeros(2))
    assert measure(single, "tuned", {}) == metrics(single) and find(single, "tuned") == {}
    assert measured(False, "tuned").directions == METRICS
    for setting in ("tuned", 0.5):
        assert tuple(measure(SMALL, setting, find(SMALL, setting))) == tuple(measured(True, setting).directions)
    assert find(SMALL, 0.3) == {}
    assert measure(SMALL, 0.3, {}) == multilabel_metrics(SMALL, 0.3)
    assert find(SMALL, "tuned") == {"thresholds": tune_thresholds(SMALL.labels, SMALL.probabilities).tolist()}
