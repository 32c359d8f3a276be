"""Losses for one label an image. Each gives one value an image, so that its caller decides what to average over.

All are linear in their targets: the loss of a target that is mixed from two labels is mixed from the losses of both.
A weight multiplies the loss of its class as a whole, label smoothing included: where `torch`'s cross entropy weighs
what is smoothed by the classes it is spread over, a frequent class would mostly learn to be unsure.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

SampleLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits, targets) -> (B,) in fp32. Logits are (B, C), of any floating type; targets class numbers (B,), or numbers in
[0, 1], (B, C), that with one label an image sum to 1."""

SMALLEST = 1e-12
"""Below this a probability is taken for it, where its power's slope would be infinite."""


def cross_entropy(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Computes the cross entropy of each image, (B,), in fp32.

    Args:
        logits: (B, C), of any floating type.
        targets: class numbers (B,), or class probabilities (B, C) that sum to 1, as mixing makes them.
        label_smoothing: part of the target that is spread evenly over all classes (arXiv:1512.00567).
        weights: (C,); None: 1.
    """
    if weights is not None:
        costs = -F.log_softmax(logits.float(), dim=1)
        return (_spread(targets, costs, label_smoothing, weights) * costs).sum(dim=1)
    if targets.is_floating_point():
        targets = targets.float()
    return F.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=label_smoothing)


def focal(
    logits: Tensor, targets: Tensor, *, gamma: float, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Computes the focal loss of each image, (B,): ``-(1 - p)^gamma log p`` of the true class's p (arXiv:1708.02002).

    Arguments are those of :func:`cross_entropy`; ``weights`` are the paper's alpha. With gamma 0 it is cross entropy.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    costs = -((-torch.expm1(log_p)).clamp(min=SMALLEST) ** gamma) * log_p
    return (_spread(targets, costs, label_smoothing, weights) * costs).sum(dim=1)


def logit_adjusted(logits: Tensor, targets: Tensor, *, shifts: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Computes the cross entropy of logits plus ``shifts`` (C,), tau times the classes' log frequencies, (B,).

    The logits themselves then rank classes as if all were equally frequent (Menon et al., arXiv:2007.07314).
    """
    return cross_entropy(logits.float() + shifts, targets, label_smoothing=label_smoothing)


def one_against_all(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Computes the mean over C classes of the binary cross entropy of "is it this class?", (B,) (arXiv:2110.00476).

    Arguments are those of :func:`cross_entropy`.
    """
    logits = logits.float()
    positive = _spread(targets, logits, label_smoothing, weights)
    negative = positive.sum(dim=1, keepdim=True) - positive
    return -(positive * F.logsigmoid(logits) + negative * F.logsigmoid(-logits)).mean(dim=1)


def _spread(targets: Tensor, like: Tensor, label_smoothing: float, weights: Tensor | None) -> Tensor:
    """Returns weighted and smoothed targets as a matrix (B, C): each row's sum is its weight."""
    num_classes = like.shape[1]
    if not targets.is_floating_point():
        targets = F.one_hot(targets, num_classes)
    targets = targets.to(like.dtype)
    if weights is not None:
        targets = targets * weights
    if label_smoothing:
        total = targets.sum(dim=1, keepdim=True)
        targets = (1 - label_smoothing) * targets + label_smoothing / num_classes * total
    return targets
