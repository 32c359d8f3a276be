"""What is drawn for common changes: from torch's global generator, in torchvision's order and distribution."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from engine.images.transforms import Box


def uniform(low: float, high: float) -> float:
    """Draws a number from [low, high)."""
    return torch.empty(1).uniform_(low, high).item()


def happens(probability: float) -> bool:
    """Draws whether something of a probability happens."""
    return torch.rand(1).item() < probability


def below(count: int) -> int:
    """Draws a whole number from 0 to ``count`` - 1."""
    return int(torch.randint(count, (1,)).item())


def draw_crop(width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]) -> Box:
    """Draws a part of an image as torchvision's ``RandomResizedCrop``; of a strip of one pixel it has one, too.

    Args:
        width: The image's.
        height: The image's.
        scale: Least and largest part of the area.
        ratio: Least and largest width divided by height.
    """
    logs = _logs(ratio)
    for _ in range(10):
        area = width * height * uniform(*scale)
        aspect = torch.empty(1).uniform_(*logs).exp_().item()
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            top, left = below(height - down + 1), below(width - across + 1)
            return left, top, left + across, top + down
    across, down = width, height
    if width / height < min(ratio):
        down = max(1, round(width / min(ratio)))
    elif width / height > max(ratio):
        across = max(1, round(height * max(ratio)))
    top, left = (height - down) // 2, (width - across) // 2
    return left, top, left + across, top + down


@lru_cache(maxsize=8)
def _logs(ratio: tuple[float, float]) -> list[float]:
    return torch.log(torch.tensor(ratio)).tolist()
