"""Random priors, objects and predictions for tests."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest import mock

import torch
from torch import Tensor

from detection.boxes.postprocess import suppress_each, suppress_together


def random_boxes(*shape: int, generator: torch.Generator, least: float = 0.02) -> Tensor:
    """Boxes (*shape, 4), xyxy in [0, 1], of at least ``least`` on each side."""
    sizes = least + (0.5 - least) * torch.rand(*shape, 2, generator=generator)
    corner = (1 - sizes) * torch.rand(*shape, 2, generator=generator)
    return torch.cat([corner, corner + sizes], dim=-1)


def grid_priors(cells: int = 6, sizes: tuple[float, ...] = (0.15, 0.3)) -> Tensor:
    """Square priors (cells² · sizes, 4), cxcywh, at the middles of cells."""
    middles = (torch.arange(cells) + 0.5) / cells
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    return torch.cat([torch.stack([x, y, x * 0 + size, x * 0 + size], dim=-1).view(-1, 4) for size in sizes])


def padded(boxes: list[Tensor], labels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, M, 4), labels (B, M) and mask (B, M) of images with any numbers of objects; M is at least 1."""
    most = max(1, *(len(each) for each in boxes))
    out = torch.zeros(len(boxes), most, 4), torch.zeros(len(boxes), most, dtype=torch.int64)
    mask = torch.zeros(len(boxes), most, dtype=torch.bool)
    for i, (own, classes) in enumerate(zip(boxes, labels, strict=True)):
        out[0][i, : len(own)], out[1][i, : len(own)], mask[i, : len(own)] = own, classes, True
    return *out, mask


def suppressing(together: bool) -> AbstractContextManager[object]:
    """Has ``postprocess`` suppress in many images by one call, or image by image, whatever suits the device."""
    way = suppress_together if together else suppress_each
    return mock.patch.multiple("detection.boxes.postprocess", suppress_each=way, suppress_together=way)
