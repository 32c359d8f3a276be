"""Mixup (Zhang et al., arXiv:1710.09412) and CutMix (Yun et al., arXiv:1905.04899), decided for the global batch.

Neighbours mix: the image at position p of the epoch's order with the one at p XOR 1. The order is a random
permutation, so neighbours are as random as any two, and with an even micro-batch they are always on the same rank.
Strengths and boxes are distributed as timm's, but follow from (seed, epoch, step) or (seed, epoch, pair) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from classification.augmentation.sections import AugmentationConfig
from engine.seed import generator


@dataclass(frozen=True)
class MixingPlan:
    """How each of B images is mixed with its neighbour in the micro-batch."""

    pixel_weights: Tensor
    """(B,) float32 in [0, 1]: weight of the image itself outside its box; 1 with CutMix."""
    boxes: Tensor
    """(B, 4) int64: top, bottom, left, right of the box that the neighbour fills; empty with Mixup."""
    target_weights: Tensor
    """(B,) float32 in [0, 1]: weight of the image's own label."""


def plan_mixing(
    config: AugmentationConfig,
    seed: int,
    epoch: int,
    step_in_epoch: int,
    positions: Sequence[int],
    height: int,
    width: int,
) -> MixingPlan:
    """Decides for the images at ``positions`` of an epoch, which are consecutive, the first one even.

    A last image without a neighbour stays as it is.
    """
    pairs = [position // 2 for position in positions]
    assert pairs == [positions[0] // 2 + place // 2 for place in range(len(positions))], "pairs must not be torn apart"
    if config.mixing_mode == "batch":
        drawn = [_draw(config, generator(seed, "mixing", epoch, step_in_epoch), height, width)] * len(pairs)
    else:
        by_pair = {pair: _draw(config, generator(seed, "mixing", epoch, pair), height, width) for pair in set(pairs)}
        drawn = [by_pair[pair] for pair in pairs]
    if len(drawn) % 2:
        drawn[-1] = _UNMIXED
    pixel_weights, boxes, target_weights = zip(*drawn, strict=True)
    return MixingPlan(
        torch.tensor(pixel_weights, dtype=torch.float32),
        torch.tensor(boxes),
        torch.tensor(target_weights, dtype=torch.float32),
    )


def apply_mixing(images: Tensor, labels: Tensor, num_classes: int, plan: MixingPlan) -> tuple[Tensor, Tensor]:
    """Mixes neighbours of a micro-batch.

    Args:
        images: (B, 3, H, W), normalised, of any floating type.
        labels: (B,) class numbers; or, with several labels an image, (B, num_classes) of 0 and 1.

    Returns:
        The mixed images, (B, 3, H, W), and targets, (B, num_classes) in fp32 in [0, 1]: of class numbers, each row
        sums to 1.
    """
    count, _, height, width = images.shape
    neighbour = (torch.arange(count, device=images.device) ^ 1).clamp(max=count - 1)
    top, bottom, left, right = (edge[:, None] for edge in plan.boxes.unbind(1))
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    in_rows = (rows >= top) & (rows < bottom)
    in_columns = (columns >= left) & (columns < right)
    in_box = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    weights = plan.pixel_weights[:, None, None, None].masked_fill(in_box, 0.0).to(images.dtype)
    targets = as_rows(labels, num_classes)
    return (
        torch.lerp(images[neighbour], images, weights),
        torch.lerp(targets[neighbour], targets, plan.target_weights[:, None]),
    )


def as_rows(labels: Tensor, num_classes: int) -> Tensor:
    """Turns class numbers (B,) into rows of 0 and 1, (B, num_classes) in fp32; rows keep their values."""
    return (labels if labels.ndim == 2 else F.one_hot(labels, num_classes)).float()


Drawn = tuple[float, tuple[int, int, int, int], float]
"""Weight of the own pixels, box of the neighbour's, weight of the own label."""

_UNMIXED: Drawn = (1.0, (0, 0, 0, 0), 1.0)


def _draw(config: AugmentationConfig, rng: np.random.Generator, height: int, width: int) -> Drawn:
    if rng.random() >= config.mixing_probability:
        return _UNMIXED
    cuts = bool(config.cutmix) and (not config.mixup or rng.random() < config.cutmix_probability)
    alpha = config.cutmix if cuts else config.mixup
    if not alpha:
        return _UNMIXED
    weight = float(rng.beta(alpha, alpha))
    if not cuts:
        return weight, (0, 0, 0, 0), weight
    top, bottom, left, right = box = _box(weight, rng, height, width)
    return 1.0, box, 1.0 - (bottom - top) * (right - left) / (height * width)


def _box(weight: float, rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """Draws a box of ``1 - weight`` of the image's area, centred anywhere in it and cut off at its edges."""
    side = np.sqrt(1 - weight)
    box_height, box_width = int(height * side), int(width * side)
    middle_row, middle_column = int(rng.integers(height)), int(rng.integers(width))
    return (
        max(middle_row - box_height // 2, 0),
        min(middle_row + (box_height + 1) // 2, height),
        max(middle_column - box_width // 2, 0),
        min(middle_column + (box_width + 1) // 2, width),
    )
