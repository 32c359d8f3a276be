"""Losses for any number of labels an image: the mean over all C labels, so that one learning rate fits any number.

Each gives one value an image. All are linear in their targets, as those for one label are: the loss of a label that is
there by half is half of either loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from classification.losses.single_label import SMALLEST


def binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    positive_weights: Tensor | float = 1.0,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Computes the mean binary cross entropy of each image's labels, (B,), in fp32.

    Args:
        logits: (B, C), of any floating type.
        targets: (B, C) in [0, 1].
        positive_weights: factor of the loss of labels that are there, (C,) or one.
        label_smoothing: part of each target that is spread evenly over yes and no.
        weights: factor of each label's loss, (C,); None: 1.
    """
    logits = logits.float()
    present = -F.logsigmoid(logits) * positive_weights
    return _mean(targets, present, -F.logsigmoid(-logits), label_smoothing, weights)


def asymmetric(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_pos: float,
    gamma_neg: float,
    clip: float = 0.0,
    alpha: Tensor | None = None,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Computes the asymmetric loss of each image's labels (Ridnik et al., arXiv:2009.14119), (B,).

    With p a label's probability, it is ``-(1 - p)^gamma_pos log p`` where the label is there, else
    ``-q^gamma_neg log(1 - q)`` with ``q = max(p - clip, 0)``; ``alpha``, (C,) in (0, 1), multiplies the first and
    1 - alpha the second. With one gamma and no clip it is the focal loss (Lin et al., arXiv:1708.02002). The published
    code takes the sum over labels, and by default no gradient through the powers; here the gradient is the whole
    loss's. Other arguments are those of :func:`binary_cross_entropy`.
    """
    log_p, log_not_p = F.logsigmoid(logits.float()), F.logsigmoid(-logits.float())
    present = -torch.exp(gamma_pos * log_not_p) * log_p
    if clip:
        q = (torch.exp(log_p) - clip).clamp(min=SMALLEST)
        absent = -(q**gamma_neg) * torch.log1p(-q)
    else:
        absent = -torch.exp(gamma_neg * log_p) * log_not_p
    if alpha is not None:
        present, absent = alpha * present, (1 - alpha) * absent
    return _mean(targets, present, absent, label_smoothing, weights)


def _mean(targets: Tensor, present: Tensor, absent: Tensor, label_smoothing: float, weights: Tensor | None) -> Tensor:
    """Takes the mean over the classes of what each label costs if it is there and if it is not, (B, C): (B,)."""
    targets = targets.float() * (1 - label_smoothing) + label_smoothing / 2
    costs = targets * present + (1 - targets) * absent
    return (costs if weights is None else costs * weights).mean(dim=1)
