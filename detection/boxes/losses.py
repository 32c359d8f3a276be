"""SSD's losses over a whole batch at once, without waiting for the device.

Each image has a loss of its own: the sum over its priors, divided by the number of its own priors that have objects
(the N of arXiv:1512.02325, equation 1), or by a constant. The batch's loss is the mean over its images. It is
therefore the same however the images are spread over ranks and micro-batches, which a division by the number of
positives in the batch is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from detection.boxes.boxes import decode, encode
from detection.boxes.matching import Matches
from detection.boxes.sections import CrossEntropyConfig, FocalConfig, LossConfig


def detection_loss(
    logits: Tensor, codes: Tensor, priors: Tensor, matches: Matches, config: LossConfig
) -> dict[str, Tensor]:
    """Computes ``loss`` and its parts, ``loss_classes`` and ``loss_boxes``: means over the images, in fp32.

    Args:
        logits: (B, A, C + 1) with the background first for ``cross_entropy``, (B, A, C) for ``focal``.
        codes: (B, A, 4), see :func:`detection.boxes.boxes.encode`.
        priors: (A, 4) cxcywh.
        matches: what the priors are to learn, of C classes.
    """
    logits, codes = logits.float(), codes.float()
    counts = matches.positive.sum(dim=1)
    divisor = counts.clamp(min=1) if config.normalizer == "positives" else config.normalizer
    if isinstance(config, FocalConfig):
        class_losses = focal_loss(logits, matches, config)
    else:
        class_losses = mined_cross_entropy(logits, matches, config)
    class_loss = (class_losses / divisor).mean()
    box_loss = (box_losses(codes, priors, matches, config.boxes) / divisor).mean()
    return {"loss": class_loss + config.box_weight * box_loss, "loss_classes": class_loss, "loss_boxes": box_loss}


def mined_cross_entropy(logits: Tensor, matches: Matches, config: CrossEntropyConfig) -> Tensor:
    """Computes the softmax cross entropy of each image, (B,), summed over its positives and its hardest negatives.

    Of negatives count those with the largest losses, ``config.negatives_per_positive`` for each positive and at least
    ``config.min_negatives`` (arXiv:1512.02325, "hard negative mining").
    """
    targets = torch.where(matches.positive, matches.labels + 1, 0)
    losses = _CrossEntropy.apply(logits, targets)
    wanted = (matches.positive.sum(dim=1, keepdim=True) * config.negatives_per_positive).clamp(min=config.min_negatives)
    hardest = torch.where(matches.negative, losses, 0.0).sort(dim=1, descending=True).values
    ranks = torch.arange(losses.shape[1], device=losses.device)
    mined = torch.where(ranks < wanted, hardest, 0.0)  # a loss is never below the 0 of those that are no negatives
    return (torch.where(matches.positive, losses, 0.0) + mined).sum(dim=1)


class _CrossEntropy(torch.autograd.Function):
    """Softmax cross entropy of each row, (...), for logits (..., C) and targets (...).

    ``F.cross_entropy`` without reduction, whose backward pass makes a second tensor of the logits' size, mostly zeros,
    and reads it again: here one is made.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        log_probabilities = F.log_softmax(logits, dim=-1)
        ctx.save_for_backward(log_probabilities, targets)
        return -log_probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        log_probabilities, targets = ctx.saved_tensors
        weights = gradient.unsqueeze(-1)
        return log_probabilities.exp().mul_(weights).scatter_add_(-1, targets.unsqueeze(-1), -weights), None


def focal_loss(logits: Tensor, matches: Matches, config: FocalConfig) -> Tensor:
    """Computes the sigmoid focal loss (arXiv:1708.02002) of each image, (B,), over all priors that are not ignored."""
    targets = torch.zeros_like(logits)
    targets.scatter_(2, matches.labels.unsqueeze(-1), matches.positive.unsqueeze(-1).to(logits.dtype))
    losses = sigmoid_focal_loss(logits, targets, config.focal_alpha, config.focal_gamma, reduction="none").sum(dim=2)
    return torch.where(matches.positive | matches.negative, losses, 0.0).sum(dim=1)


def box_losses(codes: Tensor, priors: Tensor, matches: Matches, kind: str) -> Tensor:
    """Computes the loss of boxes of each image, (B,), summed over its positives; ``kind`` as in `loss.boxes`."""
    if kind == "smooth_l1":
        losses = F.smooth_l1_loss(codes, encode(matches.boxes, priors), reduction="none").sum(dim=2)
    else:
        losses = {"giou": giou_loss, "ciou": ciou_loss}[kind](decode(codes, priors), matches.boxes)
    return torch.where(matches.positive, losses, 0.0).sum(dim=1)


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Computes 1 - generalised IoU (arXiv:1902.09630) of xyxy boxes (..., 4) of positive area: (...), from 0 to 2.

    As torchvision's, but without selecting by a mask, for which the host would have to wait.
    """
    iou, union, width, height = _overlap(boxes.unbind(-1), targets.unbind(-1))
    hull = width * height
    return 1 - iou + (hull - union) / hull


def ciou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Computes 1 - complete IoU (arXiv:1911.08287) of xyxy boxes (..., 4) of positive area: (...).

    As torchvision's, but without selecting by a mask. Ratios of sides are those of the stretched image, where inputs
    are not square.
    """
    found, wanted = boxes.unbind(-1), targets.unbind(-1)
    iou, _, width, height = _overlap(found, wanted)
    shift_x, shift_y = ((found[k] + found[k + 2] - wanted[k] - wanted[k + 2]) / 2 for k in (0, 1))
    ratios = [torch.atan((right - left) / (bottom - top)) for left, top, right, bottom in (found, wanted)]
    shape = (4 / math.pi**2) * (ratios[1] - ratios[0]).square()
    with torch.no_grad():
        weight = shape / (1 - iou + shape + 1e-7)
    distance = (shift_x.square() + shift_y.square()) / (width.square() + height.square())
    return 1 - iou + distance + weight * shape


def _overlap(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """IoU, area of the union, and width and height of the smallest box around both: (...) each.

    Args:
        found, wanted: left, top, right and bottom sides, (...) each; on pairs of them a CPU is slower.
    """
    (left, top, right, bottom), (left_, top_, right_, bottom_) = found, wanted
    common_width = (torch.minimum(right, right_) - torch.maximum(left, left_)).clamp(min=0)
    common = common_width * (torch.minimum(bottom, bottom_) - torch.maximum(top, top_)).clamp(min=0)
    union = (right - left) * (bottom - top) + (right_ - left_) * (bottom_ - top_) - common
    width = torch.maximum(right, right_) - torch.minimum(left, left_)
    height = torch.maximum(bottom, bottom_) - torch.minimum(top, top_)
    return common / union, union, width, height
