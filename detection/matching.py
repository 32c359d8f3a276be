"""Which prior has to find which object: SSD's matching, over a padded batch at once and without waiting for the device.

Shapes: B pictures, A priors, at most M objects a picture, at most R regions to ignore a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detection.boxes import areas, corners, intersections, pairwise_iou
from detection.loss_config import MatchingConfig


@dataclass(frozen=True)
class Matches:
    """What each prior is to learn."""

    positive: Tensor
    """(B, A) bool: has to find an object."""
    negative: Tensor
    """(B, A) bool: has to say that there is none."""
    labels: Tensor
    """(B, A) int64: class of the object; 0 where not positive."""
    boxes: Tensor
    """(B, A, 4) xyxy: the object; the prior itself where not positive, so that every code is finite."""


@torch.no_grad()
def match(
    priors: Tensor, boxes: Tensor, labels: Tensor, mask: Tensor, ignored: Tensor, config: MatchingConfig
) -> Matches:
    """Matches priors and objects as SSD does (arXiv:1512.02325, section 2.2).

    A prior is positive for the object that it overlaps most, if their IoU is at least ``config.iou``. Besides, each
    object has the prior that it overlaps most, whatever their IoU; where two objects want the same one, it goes to the
    one that overlaps it more, and of equals to the later. A prior that is not positive and lies to at least
    ``config.ignored_part`` in a region to ignore is neither positive nor negative.

    Args:
        priors: (A, 4) cxcywh.
        boxes: (B, M, 4) xyxy; M is at least 1.
        labels: (B, M) int64, classes from 0 on.
        mask: (B, M) bool, False where a row only fills up its picture.
        ignored: (B, R, 4) xyxy, rows that only fill up are all zero; R may be 0.
    """
    prior_boxes = corners(priors)
    iou = pairwise_iou(boxes, prior_boxes).masked_fill_(~mask.unsqueeze(-1), -1.0)  # (B, M, A)
    best_iou, best_object = iou.max(dim=1)  # (B, A)
    wanted = _wanted(iou, mask)
    positive = (best_iou >= config.iou) | (wanted >= 0)
    objects = torch.where(wanted >= 0, wanted, best_object)
    negative = ~positive & ~_ignored(prior_boxes, ignored, config.ignored_part)
    rows = objects.unsqueeze(-1).expand(-1, -1, 4)
    return Matches(
        positive,
        negative,
        torch.where(positive, labels.gather(1, objects), 0),
        torch.where(positive.unsqueeze(-1), boxes.gather(1, rows), prior_boxes),
    )


def _wanted(iou: Tensor, mask: Tensor) -> Tensor:
    """The object (B, A) that has each prior as its best one; -1 for priors that are no object's best.

    An object that overlaps no prior wants none.
    """
    batch, objects, priors = iou.shape
    own_iou, own_prior = iou.max(dim=2)  # (B, M)
    wants = mask & (own_iou > 0)
    claims = torch.where(wants, own_iou, -1.0)
    highest = iou.new_full((batch, priors), -1.0).scatter_reduce_(1, own_prior, claims, "amax")
    winners = wants & (claims == highest.gather(1, own_prior))
    numbers = torch.where(winners, torch.arange(objects, device=iou.device), -1)
    nobody = torch.full((batch, priors), -1, dtype=torch.int64, device=iou.device)
    return nobody.scatter_reduce_(1, own_prior, numbers, "amax")


def _ignored(prior_boxes: Tensor, regions: Tensor, part: float) -> Tensor:
    """Which priors (B, A) lie to at least ``part`` of their area in one of ``regions`` (B, R, 4)."""
    if regions.shape[1] == 0:  # a shape, which the host knows
        return torch.zeros(regions.shape[0], prior_boxes.shape[0], dtype=torch.bool, device=regions.device)
    return (intersections(regions, prior_boxes) >= part * areas(prior_boxes)).any(dim=1)
