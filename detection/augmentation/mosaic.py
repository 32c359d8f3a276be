"""Four images as the quarters of one (mosaic, arXiv:2004.10934)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import box_area

from detection.data.sample import CROWD, Sample
from engine.images.lazy_image import LazyImage
from engine.images.transforms import Resizer

BILINEAR = Resizer("bilinear", exact=False)


def mosaic(
    samples: Sequence[Sample],
    size: tuple[int, int],
    centre: tuple[float, float],
    visible: float,
    resizer: Resizer = BILINEAR,
) -> Sample:
    """Puts four samples together: top left, top right, bottom left, bottom right.

    Each image covers its quarter in its own proportions, with the corner that lies inside the mosaic kept and what is
    too much cut off at the others.

    Args:
        size: height and width of the result.
        centre: where the four meet, (x, y) as parts of the size.
        resizer: what resizes each image.
        visible: an object of which less is left, by area, becomes a region to ignore.
    """
    height, width = size
    x = min(max(round(centre[0] * width), 1), width - 1)
    y = min(max(round(centre[1] * height), 1), height - 1)
    quarters = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
    canvas = np.empty((height, width, 3), np.uint8)
    boxes, labels = [], []
    for number, (sample, (left, top, right, bottom)) in enumerate(zip(samples, quarters, strict=True)):
        source = sample.image
        scale = max((right - left) / source.width, (bottom - top) / source.height)
        used = [max(1, round((right - left) / scale)), max(1, round((bottom - top) / scale))]
        used = [min(used[0], source.width), min(used[1], source.height)]
        cut_left = 0 if number % 2 else source.width - used[0]
        cut_top = 0 if number >= 2 else source.height - used[1]
        area = (cut_left, cut_top, cut_left + used[0], cut_top + used[1])
        canvas[top:bottom, left:right] = resizer(source, bottom - top, right - left, area)
        scales = torch.tensor([(right - left) / used[0], (bottom - top) / used[1]] * 2)
        moved = (sample.boxes - torch.tensor([cut_left, cut_top] * 2)) * scales + torch.tensor([left, top] * 2)
        limits = torch.tensor([left, top, right, bottom], dtype=moved.dtype)
        kept = torch.cat([moved[:, :2].clamp(min=limits[:2]), moved[:, 2:].clamp(max=limits[2:])], dim=1)
        there = (kept[:, 2:] > kept[:, :2]).all(dim=1)
        whole = box_area(kept) >= visible * box_area(moved)
        boxes.append(kept[there])
        labels.append(torch.where(whole, sample.labels, CROWD)[there])
    return Sample(LazyImage.of(canvas), torch.cat(boxes), torch.cat(labels))
