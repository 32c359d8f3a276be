"""From an image to the model's size without randomness, as `data` asks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from engine.devices.opencv import cv2
from engine.images.image_io import ImageArray
from engine.images.lazy_image import REDUCTIONS, LazyImage
from engine.images.preprocessing import Preprocessing

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""

STRIP = 32
"""An image whose sides differ more than so many times as much as those wanted is a strip, and resized otherwise."""
FINER = 2
"""A part of an image that is decoded at reduced size has at least so many times the sides that are wanted of it."""


class EvalTransform:
    """Resizes without randomness: to a uint8 tensor (3, height, width). The seed is not used."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._resize = resize_step(preprocessing)

    def __call__(self, image: LazyImage, seed: int = 0) -> Tensor:
        return to_tensor(self._resize(image))


def packed(pixels: ImageArray) -> ImageArray:
    """Returns pixels (H, W, 3) whose channels lie side by side in memory, as OpenCV takes them."""
    return pixels if pixels.strides[2] == 1 else cv2.merge(list(pixels.transpose(2, 0, 1)))


def flipped(pixels: ImageArray, down: bool) -> ImageArray:
    """Mirrors pixels (H, W, 3) left and right, or up and down, and leaves their order in memory as it is."""
    if pixels.strides[2] == 1:
        return cv2.flip(pixels, 0 if down else 1)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if down:
        return np.ascontiguousarray(planes[:, ::-1]).transpose(1, 2, 0)
    rows = cv2.flip(planes.reshape(-1, pixels.shape[1]), 1)
    return rows.reshape(planes.shape).transpose(1, 2, 0)


def to_tensor(pixels: ImageArray) -> Tensor:
    """Returns pixels (H, W, 3) as uint8 (3, H, W)."""
    planes = pixels.transpose(2, 0, 1)
    if pixels.strides[2] != 1 and planes.flags.c_contiguous:
        return torch.from_numpy(planes)
    tensor = torch.empty(3, *pixels.shape[:2], dtype=torch.uint8)
    cv2.split(np.ascontiguousarray(pixels), list(tensor.numpy()))
    return tensor


@dataclass(frozen=True)
class Resizer:
    """Resizes parts of images."""

    interpolation: str
    """nearest, bilinear, bicubic or lanczos."""
    exact: bool
    """Decode whole images and resize as Pillow does; else reduced ones, if fine enough, and as torch does."""

    def __call__(self, image: LazyImage, height: int, width: int, part: Box | None = None) -> ImageArray:
        """Returns ``part`` of an image, None for all of it, in a size."""
        return packed(self.unpacked(image, height, width, part))

    def unpacked(self, image: LazyImage, height: int, width: int, part: Box | None = None) -> ImageArray:
        """Returns the same, but its channels may lie one behind the other in memory, see :func:`packed`."""
        left, top, right, bottom = part or (0, 0, *image.size)
        reduction = 1
        if image.reducible and not self.exact:
            most = min((right - left) / width, (bottom - top) / height) / FINER
            reduction = next((factor for factor in REDUCTIONS if factor <= most), 1)
        pixels = image.pixels(reduction, bottom)
        if (rows := pixels.shape[0], columns := pixels.shape[1]) != (image.height, image.width):  # an n-th, rounded up
            fewer = round(max(image.size) / max(rows, columns))
            left, top = min(round(left / fewer), columns - 1), min(round(top / fewer), rows - 1)
            right, bottom = max(left + 1, round(right / fewer)), max(top + 1, round(bottom / fewer))
            if part is None:
                right, bottom = columns, rows
        return self._resized(pixels[top:bottom, left:right], height, width)

    def _resized(self, pixels: ImageArray, height: int, width: int) -> ImageArray:
        rows, columns = pixels.shape[:2]
        if (rows, columns) == (height, width):
            return pixels
        if width > columns and width * rows > STRIP * height * columns:  # all of its rows would be widened first
            pixels = self._resized(pixels, height, columns)
        if self.exact or self.interpolation not in ("bilinear", "bicubic"):
            resampling = Image.Resampling[self.interpolation.upper()]
            return np.array(Image.fromarray(pixels).resize((width, height), resampling))
        given = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)[None]
        made = F.interpolate(given, (height, width), mode=self.interpolation, antialias=True)
        return made[0].permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class ResizeToCover:
    """Resizes in the image's own proportions, so that the ``crop_pct`` part of it covers the given size, and cuts.

    Of a strip, which would become far larger than that, there is only the middle.
    """

    height: int
    width: int
    crop_pct: float
    resizer: Resizer

    def __call__(self, image: LazyImage) -> ImageArray:
        height, width = math.floor(self.height / self.crop_pct), math.floor(self.width / self.crop_pct)
        if height * image.width >= width * image.height:  # relative to the size wanted, it is wide
            size = [height, height * image.width // image.height]
        else:
            size = [width * image.height // image.width, width]
        if max(size[0] / height, size[1] / width) > STRIP:  # all of it would be far larger than what is used
            pixels = _middle(
                image.pillow(), size, (height, width), Image.Resampling[self.resizer.interpolation.upper()]
            )
        else:
            pixels = self.resizer(image, size[0], size[1])
        top, left = round((pixels.shape[0] - self.height) / 2), round((pixels.shape[1] - self.width) / 2)
        return pixels[top : top + self.height, left : left + self.width]


def _middle(image: Image.Image, size: list[int], least: tuple[int, int], resampling: Image.Resampling) -> ImageArray:
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
    box = (first_column, first_row, last_column, last_row)
    return np.array(image.crop((left, top, right, bottom)).resize((width, height), resampling, box=box))


@dataclass(frozen=True)
class Squash:
    """Resizes to the given size, whatever the image's proportions."""

    height: int
    width: int
    resizer: Resizer

    def __call__(self, image: LazyImage) -> ImageArray:
        return self.resizer(image, self.height, self.width)


@dataclass(frozen=True)
class ResizeToFit:
    """Resizes in the image's own proportions, so that all of it fits the given size, and fills the bars beside it."""

    height: int
    width: int
    resizer: Resizer
    fill: tuple[int, int, int] | None
    """Colour of the bars, 0 to 255; None repeats the outermost pixels."""

    def __call__(self, image: LazyImage) -> ImageArray:
        scale = min(self.height / image.height, self.width / image.width)
        height = min(self.height, max(1, round(image.height * scale)))
        width = min(self.width, max(1, round(image.width * scale)))
        left, top = (self.width - width) // 2, (self.height - height) // 2
        bars = (top, self.height - height - top, left, self.width - width - left)
        pixels = self.resizer(image, height, width)
        if self.fill is None:
            return cv2.copyMakeBorder(pixels, *bars, cv2.BORDER_REPLICATE)
        return cv2.copyMakeBorder(pixels, *bars, cv2.BORDER_CONSTANT, value=self.fill)


def resizer_of(preprocessing: Preprocessing) -> Resizer:
    """Returns what resizes as `data.interpolation` and `data.decode` say."""
    return Resizer(preprocessing.interpolation, preprocessing.decode == "exact")


def resize_step(preprocessing: Preprocessing) -> Callable[[LazyImage], ImageArray]:
    """Returns what `data.resize` stands for: from an image to pixels (height, width, 3)."""
    size, resizer = preprocessing.size, resizer_of(preprocessing)
    if preprocessing.resize == "pad":
        return ResizeToFit(*size, resizer, None if preprocessing.pad_fill == "edge" else preprocessing.fill)
    if preprocessing.resize == "squash":
        return Squash(*size, resizer)
    return ResizeToCover(*size, preprocessing.crop_pct, resizer)
