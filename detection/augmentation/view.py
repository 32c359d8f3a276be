"""The part of an image that a model sees, as numbers first: nothing is decoded before all is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.images.image_io import ImageArray
from engine.images.lazy_image import LazyImage
from engine.images.transforms import Box, Resizer


@dataclass(frozen=True)
class View:
    """A part of an image, or of what lies around it."""

    frame: tuple[int, int]
    """Width and height that count as those of the image, which may have more pixels."""
    box: Box
    """In pixels of the frame; it may reach out of it, but not lie outside."""


def whole(frame: tuple[int, int]) -> View:
    """Returns the view of all of an image."""
    return View(frame, (0, 0, *frame))


def seen(
    image: LazyImage, view: View, size: tuple[int, int], resizer: Resizer, fill: tuple[int, int, int]
) -> tuple[ImageArray, Tensor, Tensor]:
    """Decodes and resizes what is seen, once.

    Args:
        image: Whose part it is.
        view: The part.
        size: Height and width of the result.
        resizer: What resizes it.
        fill: The colour around the image.

    Returns:
        Pixels (height, width, 3), and what makes of a box in the frame one in these pixels, xyxy: factors (4,) and
        then summands (4,).
    """
    image_sides, target = image.size, (size[1], size[0])
    source, place, factors, summands = [], [], [], []
    for axis in range(2):
        low, high, side = view.box[axis], view.box[axis + 2], view.frame[axis]
        finer, scale = image_sides[axis] / side, target[axis] / (high - low)
        first = min(round(max(low, 0) * finer), image_sides[axis] - 1)
        last = max(first + 1, round(min(high, side) * finer))
        begin = min(round((max(low, 0) - low) * scale), target[axis] - 1)
        end = max(begin + 1, round((min(high, side) - low) * scale))
        source.append((first, last))
        place.append((begin, end))
        factors.append(finer * (end - begin) / (last - first))
        summands.append(begin - first * (end - begin) / (last - first))
    (left, right), (top, bottom) = source
    (first_column, last_column), (first_row, last_row) = place
    pixels = resizer(image, last_row - first_row, last_column - first_column, (left, top, right, bottom))
    if pixels.shape[:2] != size:
        around = np.empty((*size, 3), np.uint8)
        around[:] = fill
        around[first_row:last_row, first_column:last_column] = pixels
        pixels = around
    return pixels, torch.tensor(factors * 2), torch.tensor(summands * 2)
