"""Losses for one label an image against formulas written out in float64, and against timm's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional as F

from classification.losses.single_label import SampleLoss, cross_entropy, focal, logit_adjusted, one_against_all

LOGITS = 5 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])
MIXED = 0.3 * F.one_hot(LABELS, 4).float() + 0.7 * F.one_hot(LABELS.flip(0), 4).float()
WEIGHTS = torch.tensor([0.5, 2.0, 1.25, 0.25])
SHIFTS = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()

Costs = Callable[[np.ndarray], np.ndarray]
"""Of one image's logits, what each class would cost were it the true one: (C,) -> (C,)."""


def reference(costs: Costs, targets: torch.Tensor, smoothing: float, weights: torch.Tensor | None) -> list[float]:
    """Each image's loss, term by term: a target is a mix of classes, each class's cost a mix of costs."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, 4)
    found = []
    for row, shares in zip(LOGITS.double().numpy(), targets.double().numpy(), strict=True):
        each = costs(row)
        total = 0.0
        for c, share in enumerate(shares):
            smoothed = (1 - smoothing) * each[c] + smoothing * sum(each) / 4
            total += share * (1.0 if weights is None else float(weights[c])) * smoothed
        found.append(total)
    return found


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


def cross_entropy_costs(row: np.ndarray) -> np.ndarray:
    return -np.log(softmax(row))


def focal_costs(gamma: float, row: np.ndarray) -> np.ndarray:
    return -((1 - softmax(row)) ** gamma) * np.log(softmax(row))


def adjusted_costs(row: np.ndarray) -> np.ndarray:
    """Menon et al., equation 10: the margin to each other class grows with how frequent that class is."""
    priors = np.array([0.1, 0.2, 0.3, 0.4])
    return np.array([np.log(sum((priors / priors[y]) * np.exp(row - row[y]))) for y in range(4)])


def one_against_all_costs(row: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-row))
    return np.array([-(np.log(p[y]) + sum(np.log(1 - np.delete(p, y)))) / 4 for y in range(4)])


LOSSES: dict[str, tuple[SampleLoss, Costs]] = {
    "cross_entropy": (cross_entropy, cross_entropy_costs),
    "focal": (partial(focal, gamma=2.0), partial(focal_costs, 2.0)),
    "focal, gamma 0.5": (partial(focal, gamma=0.5), partial(focal_costs, 0.5)),
    "logit_adjusted": (partial(logit_adjusted, shifts=SHIFTS), adjusted_costs),
    "one_against_all": (one_against_all, one_against_all_costs),
}
WEIGHTED = [name for name in LOSSES if name != "logit_adjusted"]


@pytest.mark.parametrize("targets", [LABELS, MIXED], ids=["labels", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_equals_its_formula(name, smoothing, targets):
    loss, costs = LOSSES[name]
    found = loss(LOGITS, targets, label_smoothing=smoothing)
    assert found.shape == (6,)
    assert found.tolist() == pytest.approx(reference(costs, targets, smoothing, None), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("targets", [LABELS, MIXED], ids=["labels", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_multiply_the_loss_of_their_class(name, smoothing, targets):
    loss, costs = LOSSES[name]
    found = loss(LOGITS, targets, label_smoothing=smoothing, weights=WEIGHTS)
    assert found.tolist() == pytest.approx(reference(costs, targets, smoothing, WEIGHTS), rel=1e-6, abs=1e-6)


def test_without_smoothing_weights_are_those_of_torch():
    expected = F.cross_entropy(LOGITS, LABELS, weight=WEIGHTS, reduction="none")
    assert torch.allclose(cross_entropy(LOGITS, LABELS, weights=WEIGHTS), expected, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [0.0, 30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_finite_at_extremes(name, size, dtype):
    logits = (size * torch.eye(4)[[0, 1, 2, 3, 0, 0]] - size / 2).to(dtype).requires_grad_()
    for targets, smoothing in ((LABELS, 0.0), (MIXED, 0.1)):
        found = LOSSES[name][0](logits, targets, label_smoothing=smoothing)
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert found.dtype == torch.float32
        assert found.isfinite().all() and gradient.isfinite().all()
        if size == 1e4 and targets is LABELS and name != "one_against_all":
            assert (gradient[0] == 0).all(), "right beyond doubt"
            assert gradient[1].abs().sum() > 0.5, "wrong beyond doubt"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_without_gamma_is_cross_entropy(smoothing):
    for targets in (LABELS, MIXED):
        expected = cross_entropy(LOGITS, targets, label_smoothing=smoothing)
        torch.testing.assert_close(focal(LOGITS, targets, gamma=0.0, label_smoothing=smoothing), expected)


def test_equal_classes_need_no_adjustment():
    shifts = torch.full((4,), 0.25).log()
    torch.testing.assert_close(logit_adjusted(LOGITS, LABELS, shifts=shifts), cross_entropy(LOGITS, LABELS))


def test_timm_agrees():
    smoothed = cross_entropy(LOGITS, LABELS, label_smoothing=0.1).mean()
    torch.testing.assert_close(smoothed, LabelSmoothingCrossEntropy(0.1)(LOGITS, LABELS))
    binary = one_against_all(LOGITS, LABELS, label_smoothing=0.1).mean()
    torch.testing.assert_close(binary, BinaryCrossEntropy(0.1)(LOGITS, LABELS))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(cross_entropy, SoftTargetCrossEntropy()), (one_against_all, BinaryCrossEntropy())]
)
def test_mixed_targets_with_smoothing_equal_timms(ours, theirs):
    """timm smooths before mixing, we after: the same, since both are linear."""
    from timm.data.mixup import mixup_target

    mixed = mixup_target(LABELS, 4, lam=0.3, smoothing=0.1)
    torch.testing.assert_close(ours(LOGITS, MIXED, label_smoothing=0.1).mean(), theirs(LOGITS, mixed))


def test_hard_targets_are_soft_ones_that_are_certain():
    certain = F.one_hot(LABELS, 4).float()
    for loss, _ in LOSSES.values():
        torch.testing.assert_close(
            loss(LOGITS, LABELS, label_smoothing=0.2), loss(LOGITS, certain, label_smoothing=0.2)
        )


def test_low_precision_logits_are_computed_in_fp32():
    for loss, _ in LOSSES.values():
        found = loss(LOGITS.bfloat16(), F.one_hot(LABELS, 4).bfloat16())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, loss(LOGITS.bfloat16().float(), LABELS))
