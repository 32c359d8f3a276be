"""From a decoded image to the model's size without randomness, as `data` asks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from engine.images.preprocessing import Preprocessing

ImageStep = Callable[[Image.Image], Image.Image]

STRIP = 32
"""An image whose sides differ more than so many times as much as those wanted is a strip, and resized otherwise."""


class EvalTransform:
    """Resizes without randomness: to a uint8 tensor (3, height, width). The seed is not used."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._steps = v2.Compose(resize_steps(preprocessing))

    def __call__(self, image: Image.Image, seed: int = 0) -> Tensor:
        return to_tensor(self._steps(image))


def to_tensor(image: Image.Image) -> Tensor:
    """Returns an RGB image as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class ResizeToCover:
    """Resizes in the image's own proportions, so that the ``crop_pct`` part of it covers the given size.

    Of a strip, which would become far larger than that, there is only the middle.
    """

    height: int
    width: int
    crop_pct: float
    interpolation: v2.InterpolationMode

    def __call__(self, image: Image.Image) -> Image.Image:
        height, width = math.floor(self.height / self.crop_pct), math.floor(self.width / self.crop_pct)
        if height * image.width >= width * image.height:  # relative to the size wanted, it is wide
            size = [height, height * image.width // image.height]
        else:
            size = [width * image.height // image.width, width]
        if max(size[0] / height, size[1] / width) > STRIP:  # all of it would be far larger than what is used
            return _middle(image, size, (height, width), self.interpolation)
        return v2.functional.resize(image, size, self.interpolation)


def _middle(
    image: Image.Image, size: list[int], least: tuple[int, int], interpolation: v2.InterpolationMode
) -> Image.Image:
    """Returns the middle of what resizing ``image`` to ``size`` would give, pixel for pixel but for rounding.

    Args:
        size: height and width of the whole.
        least: those of the middle, which may be up to three pixels more, so that its centre is that of the whole.
    """
    cuts = [(whole - wanted) // 4 * 2 for whole, wanted in zip(size, least, strict=True)]
    outer, inner = [], []
    for side, whole, cut in zip((image.height, image.width), size, cuts, strict=True):
        scale = side / whole
        begin, end = cut * scale, min(side, (whole - cut) * scale)
        reach = math.ceil(3 * max(1.0, scale)) + 1  # of the widest filter, Lanczos
        outer.append((max(0, math.floor(begin) - reach), min(side, math.ceil(end) + reach)))
        inner.append((begin - outer[-1][0], end - outer[-1][0]))
    (top, bottom), (left, right) = outer
    (first_row, last_row), (first_column, last_column) = inner
    height, width = (whole - 2 * cut for whole, cut in zip(size, cuts, strict=True))
    return image.crop((left, top, right, bottom)).resize(
        (width, height),
        Image.Resampling[interpolation.name],
        box=(first_column, first_row, last_column, last_row),
    )


@dataclass(frozen=True)
class Squash:
    """Resizes to the given size, whatever the image's proportions."""

    height: int
    width: int
    interpolation: v2.InterpolationMode

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.width / image.width > STRIP * self.height / image.height:  # Pillow would widen all of it first
            image = v2.functional.resize(image, [self.height, image.width], self.interpolation)
        return v2.functional.resize(image, [self.height, self.width], self.interpolation)


@dataclass(frozen=True)
class ResizeToFit:
    """Resizes in the image's own proportions, so that all of it fits the given size, and fills the bars beside it."""

    height: int
    width: int
    interpolation: v2.InterpolationMode
    fill: tuple[int, int, int] | None
    """Colour of the bars, 0 to 255; None repeats the outermost pixels."""

    def __call__(self, image: Image.Image) -> Image.Image:
        scale = min(self.height / image.height, self.width / image.width)
        height = min(self.height, max(1, round(image.height * scale)))
        width = min(self.width, max(1, round(image.width * scale)))
        left, top = (self.width - width) // 2, (self.height - height) // 2
        bars = [left, top, self.width - width - left, self.height - height - top]
        image = v2.functional.resize(image, [height, width], self.interpolation)
        if self.fill is None:
            return v2.functional.pad(image, bars, padding_mode="edge")
        return v2.functional.pad(image, bars, fill=list(self.fill))


def resize_steps(preprocessing: Preprocessing) -> list[ImageStep]:
    """Returns what `data.resize` stands for, one step after the other."""
    size, interpolation = preprocessing.size, v2.InterpolationMode(preprocessing.interpolation)
    if preprocessing.resize == "pad":
        return [ResizeToFit(*size, interpolation, None if preprocessing.pad_fill == "edge" else preprocessing.fill)]
    if preprocessing.resize == "squash":
        return [Squash(*size, interpolation)]
    return [ResizeToCover(*size, preprocessing.crop_pct, interpolation), v2.CenterCrop(size)]
