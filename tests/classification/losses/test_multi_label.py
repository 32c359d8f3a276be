"""Losses for several labels an image against formulas written out in float64, torchvision's and timm's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import exp, log

import pytest
import torch
from timm.loss import AsymmetricLossMultiLabel
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from classification.losses.multi_label import asymmetric, binary_cross_entropy
from classification.losses.single_label import SampleLoss

GENERATOR = torch.Generator().manual_seed(1)
LOGITS = 3 * torch.randn(5, 4, generator=GENERATOR)
LABELS = torch.randint(0, 2, (5, 4), generator=GENERATOR).float()
MIXED = 0.4 * LABELS + 0.6 * LABELS.flip(0)
WEIGHTS = torch.tensor([0.5, 2.0, 1.25, 0.25])
ALPHA = torch.tensor([0.25, 0.5, 0.75, 0.9])

Cost = Callable[[float, int], float]
"""What a label of probability p of class c costs."""


def sigmoid_focal(logits: torch.Tensor, targets: torch.Tensor, gamma: float, **settings) -> torch.Tensor:
    return asymmetric(logits, targets, gamma_pos=gamma, gamma_neg=gamma, **settings)


def asymmetric_absent(gamma: float, clip: float, p: float, c: int) -> float:
    q = max(p - clip, 0.0)
    return -(q**gamma) * log(1 - q)


LOSSES: dict[str, tuple[SampleLoss, Cost, Cost]] = {
    "bce": (binary_cross_entropy, lambda p, c: -log(p), lambda p, c: -log(1 - p)),
    "bce, positive weights": (
        partial(binary_cross_entropy, positive_weights=WEIGHTS),
        lambda p, c: -float(WEIGHTS[c]) * log(p),
        lambda p, c: -log(1 - p),
    ),
    "focal": (
        partial(sigmoid_focal, gamma=2.0),
        lambda p, c: -((1 - p) ** 2) * log(p),
        lambda p, c: -(p**2) * log(1 - p),
    ),
    "focal, alpha": (
        partial(sigmoid_focal, gamma=0.5, alpha=ALPHA),
        lambda p, c: -float(ALPHA[c]) * (1 - p) ** 0.5 * log(p),
        lambda p, c: -(1 - float(ALPHA[c])) * p**0.5 * log(1 - p),
    ),
    "asymmetric": (
        partial(asymmetric, gamma_pos=1.0, gamma_neg=4.0, clip=0.05),
        lambda p, c: -(1 - p) * log(p),
        partial(asymmetric_absent, 4.0, 0.05),
    ),
    "asymmetric, small powers": (
        partial(asymmetric, gamma_pos=0.5, gamma_neg=0.5, clip=0.5),
        lambda p, c: -((1 - p) ** 0.5) * log(p),
        partial(asymmetric_absent, 0.5, 0.5),
    ),
    "asymmetric, no clip": (
        partial(asymmetric, gamma_pos=0.0, gamma_neg=3.0, clip=0.0),
        lambda p, c: -log(p),
        partial(asymmetric_absent, 3.0, 0.0),
    ),
}


def reference(
    present: Cost, absent: Cost, targets: torch.Tensor, smoothing: float, weights: list[float]
) -> list[float]:
    found = []
    for logits, row in zip(LOGITS.tolist(), targets.tolist(), strict=True):
        total = 0.0
        for c, (logit, target) in enumerate(zip(logits, row, strict=True)):
            p, share = 1 / (1 + exp(-logit)), target * (1 - smoothing) + smoothing / 2
            total += weights[c] * (share * present(p, c) + (1 - share) * absent(p, c))
        found.append(total / 4)
    return found


@pytest.mark.parametrize("targets", [LABELS, MIXED], ids=["labels", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_equals_its_formula(name, smoothing, targets):
    loss, present, absent = LOSSES[name]
    for weights in (None, WEIGHTS):
        found = loss(LOGITS, targets, label_smoothing=smoothing, weights=weights)
        expected = reference(present, absent, targets, smoothing, [1.0] * 4 if weights is None else WEIGHTS.tolist())
        assert found.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [0.0, 30.0, 100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_finite_at_extremes(name, size, dtype):
    logits = (size * (2 * torch.eye(4) - 1)).to(dtype).requires_grad_()
    for targets in (torch.eye(4), 1 - torch.eye(4), torch.full((4, 4), 0.3)):
        found = LOSSES[name][0](logits, targets)
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        assert found.dtype == torch.float32
        assert found.isfinite().all() and gradient.isfinite().all()
        if size == 1e4 and torch.equal(targets, torch.eye(4)):
            assert found.max() < 1e-6 and (gradient == 0).all(), "right beyond doubt"


def test_torchvisions_focal_loss_agrees():
    for alpha in (0.25, None):
        expected = sigmoid_focal_loss(LOGITS, LABELS, alpha=-1 if alpha is None else alpha, gamma=2.0).mean(dim=1)
        found = sigmoid_focal(LOGITS, LABELS, gamma=2.0, alpha=None if alpha is None else torch.full((4,), alpha))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_timms_asymmetric_loss_agrees():
    """timm's is the sum over the labels of an image, and of all its images in older versions."""
    for settings in ({}, {"gamma_pos": 0.0, "gamma_neg": 2.0, "clip": 0.1}, {"clip": 0.0}):
        theirs = AsymmetricLossMultiLabel(**settings)
        expected = [float(theirs(LOGITS[i : i + 1], LABELS[i : i + 1])) / 4 for i in range(5)]
        ours = asymmetric(LOGITS, LABELS, **{"gamma_pos": 1.0, "gamma_neg": 4.0, "clip": 0.05, **settings})
        assert ours.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_torchs_binary_cross_entropy_agrees():
    expected = F.binary_cross_entropy_with_logits(LOGITS, MIXED, WEIGHTS, pos_weight=ALPHA, reduction="none").mean(
        dim=1
    )
    found = binary_cross_entropy(LOGITS, MIXED, positive_weights=ALPHA, weights=WEIGHTS)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_label_that_is_nearly_ruled_out_costs_nothing():
    """Asymmetric clipping: no loss and no gradient below the margin."""
    logits = torch.tensor([[-4.0, -2.0]], requires_grad=True)  # probabilities 0.018 and 0.119
    loss = asymmetric(logits, torch.zeros(1, 2), gamma_pos=0.0, gamma_neg=1.0, clip=0.05)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient[0, 0] == 0 and gradient[0, 1] > 0


def test_at_the_margin_itself_the_gradient_is_finite():
    logits = torch.zeros(1, 1, requires_grad=True)
    clip = float(F.logsigmoid(logits.detach()).exp())
    loss = asymmetric(logits, torch.zeros(1, 1), gamma_pos=0.0, gamma_neg=0.5, clip=clip)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isfinite().all() and loss.item() < 1e-6
