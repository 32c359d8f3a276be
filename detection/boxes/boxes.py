"""Boxes as numbers: forms, overlap, and the codes that the model predicts.

Everywhere ``xyxy`` is (left, top, right, bottom) and ``cxcywh`` is (centre x, centre y, width, height). Coordinates are
parts of the image's width and height, in [0, 1], unless a docstring says pixels. Overlaps are the same in both, since
stretching an axis changes all areas alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import box_area

CENTRE_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
"""SSD (arXiv:1512.02325) divides the codes of centres and sizes by these, so that both have a spread of about one."""

LARGEST_SIZE_CODE = math.log(1000 / 16)
"""Bound of a decoded log-ratio of sizes, either way, so that a wild prediction stays a box; torchvision's value."""


def encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """Computes what the model has to predict at each prior to mean the box (arXiv:1512.02325, section 2.2).

    Args:
        boxes: (..., A, 4) xyxy, of positive width and height.
        priors: (A, 4) cxcywh.

    Returns:
        (..., A, 4): shift of the centre in prior sizes / 0.1, log-ratio of the sizes / 0.2.
    """
    left, top, right, bottom = boxes.unbind(-1)
    x, y, width, height = columns(priors)
    codes = [
        ((left + right) / 2 - x) / (width * CENTRE_VARIANCE),
        ((top + bottom) / 2 - y) / (height * CENTRE_VARIANCE),
        ((right - left) / width).log() / SIZE_VARIANCE,
        ((bottom - top) / height).log() / SIZE_VARIANCE,
    ]
    return torch.stack(codes, dim=-1)


def decode(codes: Tensor, priors: Tensor) -> Tensor:
    """Computes the boxes (..., A, 4), xyxy, that ``codes`` (..., A, 4) mean at ``priors`` (..., A, 4), cxcywh.

    The inverse of :func:`encode`, but that sizes are at most 62.5 times the prior's and at least 1/62.5.
    Not clipped to the image.
    """
    x, y, width, height = codes.unbind(-1)
    prior_x, prior_y, prior_width, prior_height = priors.unbind(-1)
    centre_x, centre_y = prior_x + x * CENTRE_VARIANCE * prior_width, prior_y + y * CENTRE_VARIANCE * prior_height
    half_width, half_height = (
        prior / 2 * (code * SIZE_VARIANCE).clamp(-LARGEST_SIZE_CODE, LARGEST_SIZE_CODE).exp()
        for prior, code in ((prior_width, width), (prior_height, height))
    )
    sides = [centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height]
    return torch.stack(sides, dim=-1)


def columns(boxes: Tensor) -> tuple[Tensor, ...]:
    """Returns the four numbers of boxes (A, 4), each for itself, (A,), and each in one piece of memory."""
    return boxes.t().contiguous().unbind()


def corners(boxes: Tensor) -> Tensor:
    """Turns cxcywh into xyxy, (..., 4)."""
    halves = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - halves, boxes[..., :2] + halves], dim=-1)


def intersections(boxes: Tensor, others: Tensor) -> Tensor:
    """Computes the common area of each box with each other one: xyxy (..., M, 4) and (A, 4) give (..., M, A)."""
    left, top, right, bottom = boxes.unsqueeze(-1).unbind(-2)
    other_left, other_top, other_right, other_bottom = columns(others)
    width = torch.minimum(right, other_right).sub_(torch.maximum(left, other_left)).clamp_(min=0)
    height = torch.minimum(bottom, other_bottom).sub_(torch.maximum(top, other_top)).clamp_(min=0)
    return width.mul_(height)


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Computes the IoU of each box with each other one: xyxy (..., M, 4) and (A, 4) give (..., M, A).

    ``torchvision.ops.box_iou`` for a batch of box sets, coordinate by coordinate and in place: the same numbers in
    0.6 of its time on a CPU. Not differentiable; two boxes without area give NaN.
    """
    common = intersections(boxes, others)
    union = (box_area(boxes).unsqueeze(-1) + box_area(others)).sub_(common)
    return common.div_(union)
