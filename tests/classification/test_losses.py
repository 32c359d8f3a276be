from __future__ import annotations

import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional as F

from classification.loss_config import LossConfig
from classification.losses import build_loss, cross_entropy

torch.manual_seed(0)
LOGITS = 5 * torch.randn(6, 4)
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])


def test_one_value_a_picture():
    found = cross_entropy(LOGITS, LABELS)
    assert found.shape == (6,)
    expected = [-float(F.log_softmax(row, 0)[label]) for row, label in zip(LOGITS, LABELS, strict=True)]
    assert found.tolist() == pytest.approx(expected)


def test_smoothing_equals_timms():
    loss = build_loss(LossConfig(label_smoothing=0.1))
    assert float(loss(LOGITS, LABELS).mean()) == pytest.approx(float(LabelSmoothingCrossEntropy(0.1)(LOGITS, LABELS)))


def test_soft_targets_with_smoothing_equal_timms_mixed_targets():
    """timm smooths before mixing, we after: the same, since both are linear."""
    from timm.data.mixup import mixup_target

    mixed = mixup_target(LABELS, 4, lam=0.3, smoothing=0.1)
    ours = 0.3 * F.one_hot(LABELS, 4).float() + 0.7 * F.one_hot(LABELS.flip(0), 4).float()
    loss = build_loss(LossConfig(label_smoothing=0.1))
    assert float(loss(LOGITS, ours).mean()) == pytest.approx(float(SoftTargetCrossEntropy()(LOGITS, mixed)))


def test_hard_targets_are_soft_ones_that_are_certain():
    assert torch.allclose(cross_entropy(LOGITS, LABELS, 0.2), cross_entropy(LOGITS, F.one_hot(LABELS, 4).float(), 0.2))


def test_low_precision_logits_are_computed_in_fp32():
    found = cross_entropy(LOGITS.bfloat16(), F.one_hot(LABELS, 4).bfloat16())
    assert found.dtype == torch.float32
    assert torch.allclose(found, cross_entropy(LOGITS.bfloat16().float(), LABELS), atol=1e-6)
