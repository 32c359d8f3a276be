"""Which prior has to find which object: SSD's matching, over a padded batch at once and without waiting for the device.

Shapes: B images, A priors, at most M objects an image, at most R regions to ignore an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_area

from detection.boxes.boxes import corners, intersections, pairwise_iou
from detection.boxes.sections import MatchingConfig

CACHED_OVERLAPS = 2**18
"""Overlaps of objects and priors, in fp32, of which a CPU's core keeps a few copies in its cache."""


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
        mask: (B, M) bool, False where a row only fills up its image.
        ignored: (B, R, 4) xyxy, rows that only fill up are all zero; R may be 0.
    """
    prior_boxes = corners(priors)
    boxes = torch.where(mask.unsqueeze(-1), boxes, 0.0)  # without area, so that rows that fill up overlap nothing
    best_iou, best_object, own_iou, own_prior = _largest_overlaps(boxes, prior_boxes)
    wanted = _wanted(own_iou, own_prior, len(priors))
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


def _largest_overlaps(boxes: Tensor, prior_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each prior's largest IoU with an object and that object, (B, A), and each object's with a prior, (B, M).

    On a CPU some images at a time, so that their table of overlaps, which is gone through a dozen times, stays in
    the core's cache.
    """
    images = len(boxes)
    if boxes.device.type == "cpu":
        images = max(1, CACHED_OVERLAPS // (boxes.shape[1] * len(prior_boxes)))
    found = []
    for part in boxes.split(images):
        iou = pairwise_iou(part, prior_boxes)  # (images, M, A)
        found.append((*iou.max(dim=1), *iou.max(dim=2)))
    best_iou, best_object, own_iou, own_prior = (torch.cat(column) for column in zip(*found, strict=True))
    return best_iou, best_object, own_iou, own_prior


def _wanted(own_iou: Tensor, own_prior: Tensor, priors: int) -> Tensor:
    """The object (B, A) that has each prior as its best one; -1 for priors that are no object's best.

    An object that overlaps no prior wants none.

    Args:
        own_iou, own_prior: (B, M), each object's largest IoU with a prior, and that prior.
        priors: A.
    """
    batch, objects = own_iou.shape
    claims = torch.where(own_iou > 0, own_iou, -1.0)
    highest = own_iou.new_zeros(batch, priors).scatter_reduce_(1, own_prior, claims, "amax")
    winners = claims == highest.gather(1, own_prior)
    numbers = torch.where(winners, torch.arange(objects, device=own_iou.device), -1)
    return own_prior.new_full((batch, priors), -1).scatter_reduce_(1, own_prior, numbers, "amax")


def _ignored(prior_boxes: Tensor, regions: Tensor, part: float) -> Tensor:
    """Which priors (B, A) lie to at least ``part`` of their area in one of ``regions`` (B, R, 4)."""
    if regions.shape[1] == 0:  # a shape, which the host knows
        return torch.zeros(regions.shape[0], prior_boxes.shape[0], dtype=torch.bool, device=regions.device)
    return (intersections(regions, prior_boxes) >= part * box_area(prior_boxes)).any(dim=1)
