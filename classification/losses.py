"""Losses for one label a picture. Each gives one value a picture, so that its caller decides what to average over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from classification.config import LossConfig

SampleLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits, targets) -> (B,)."""


def build_loss(config: LossConfig) -> SampleLoss:
    """The configured training loss."""
    return partial(cross_entropy, label_smoothing=config.label_smoothing)


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy of each picture, (B,), in fp32.

    Args:
        logits: (B, C), of any floating type.
        targets: class numbers (B,), or class probabilities (B, C) that sum to 1, as mixing makes them.
        label_smoothing: part of the target that is spread evenly over all classes (arXiv:1512.00567).
    """
    if targets.is_floating_point():
        targets = targets.float()
    return F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=label_smoothing)
