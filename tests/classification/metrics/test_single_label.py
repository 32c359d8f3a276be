"""Metrics against formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from classification.metrics.names import METRICS
from classification.metrics.predictions import Predictions, gather, rows
from classification.metrics.single_label import confusion, metrics, per_class
from tests.engine.toy import SINGLE


def random_predictions(count: int = 200, classes: int = 7) -> tuple[Predictions, torch.Tensor, torch.Tensor]:
    """Predictions of random logits that favour the label, with the logits and labels."""
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(0, classes - 1, (count,), generator=generator)  # the last class never occurs
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), labels] += 1.0
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    order = torch.randperm(count, generator=generator)
    parts = [rows(part, labels[part], logits[part], losses[part]) for part in order.split(33)]
    return gather(parts, classes, SINGLE), logits, labels


def test_metrics_equal_their_definitions():
    predictions, logits, labels = random_predictions()
    found = metrics(predictions)
    assert tuple(found) == tuple(METRICS)
    guess = logits.argmax(1)
    assert found["top1"] == pytest.approx((guess == labels).double().mean().item(), abs=1e-12)
    top5 = logits.topk(5, dim=1).indices
    assert found["top5"] == pytest.approx((top5 == labels[:, None]).any(1).double().mean().item(), abs=1e-12)
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits.double(), labels).item(), abs=1e-6)
    precision, recall, f1 = [], [], []
    for c in sorted(set(labels.tolist()) | set(guess.tolist())):
        hit = ((guess == c) & (labels == c)).sum().item()
        said, true = (guess == c).sum().item(), (labels == c).sum().item()
        precision.append(hit / said if said else 0.0)
        recall.append(hit / true if true else 0.0)
        f1.append(2 * hit / (said + true))
    assert found["precision_macro"] == pytest.approx(np.mean(precision), abs=1e-12)
    assert found["recall_macro"] == pytest.approx(np.mean(recall), abs=1e-12)
    assert found["f1_macro"] == pytest.approx(np.mean(f1), abs=1e-12)
    assert found["f1_micro"] == pytest.approx(found["top1"], abs=1e-12)


def test_predictions_come_in_the_order_of_the_data_set_whatever_the_batches():
    predictions, logits, labels = random_predictions()
    assert predictions.labels.tolist() == labels.tolist()
    assert predictions.top[:, 0].tolist() == logits.argmax(1).tolist()
    best = logits.double().softmax(1).max(1).values
    np.testing.assert_allclose(predictions.probabilities[:, 0], best.numpy(), rtol=1e-9)


def test_top5_of_three_classes_is_always_a_hit():
    labels, logits = torch.tensor([0, 1, 2]), torch.randn(3, 3)
    found = gather([rows(torch.arange(3), labels, logits, torch.zeros(3))], 3, SINGLE)
    assert metrics(found)["top5"] == 1.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [1, 7])
def test_confusions_are_scikit_learns(classes):
    rng = np.random.default_rng(0)
    labels, top = rng.integers(classes, size=50), rng.integers(classes, size=(50, 5))
    found = confusion(Predictions(labels, top, np.zeros((50, 5)), np.zeros(50)), classes)
    assert found.sum() == 50 and found.shape == (classes, classes)
    if classes > 1:  # of a single one it complains
        assert np.array_equal(found, confusion_matrix(labels, top[:, 0], labels=np.arange(classes)))


def test_per_class_values_of_a_small_confusion_matrix():
    table = per_class(np.array([[3, 1, 0], [2, 2, 0], [0, 0, 0]]))
    assert table["support"].tolist() == [4, 4, 0]
    np.testing.assert_allclose(table["precision"], [3 / 5, 2 / 3, 0])
    np.testing.assert_allclose(table["recall"], [3 / 4, 2 / 4, 0])
    np.testing.assert_allclose(table["f1"], [2 / 3, 4 / 7, 0])
