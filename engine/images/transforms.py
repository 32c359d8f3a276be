"""From a decoded image to the model's size without randomness, as `data` asks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from engine.images.preprocessing import Preprocessing

ImageStep = Callable[[Image.Image], Image.Image]


class EvalTransform:
    """Resizes without randomness: to a uint8 tensor (3, height, width). The seed is not used."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._steps = v2.Compose(resize_steps(preprocessing))

    def __call__(self, image: Image.Image, seed: int = 0) -> Tensor:
        return to_tensor(self._steps(image))


def to_tensor(image: Image.Image) -> Tensor:
    """Returns an RGB image as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


class ResizeToCover:
    """Resizes in the image's own proportions, so that the ``crop_pct`` part of it covers the given size."""

    def __init__(self, height: int, width: int, crop_pct: float, interpolation: v2.InterpolationMode) -> None:
        self._height = math.floor(height / crop_pct)
        self._width = math.floor(width / crop_pct)
        self._interpolation = interpolation

    def __call__(self, image: Image.Image) -> Image.Image:
        if self._height * image.width >= self._width * image.height:  # relative to the size wanted, it is wide
            size = [self._height, self._height * image.width // image.height]
        else:
            size = [self._width * image.height // image.width, self._width]
        return v2.functional.resize(image, size, self._interpolation)


class ResizeToFit:
    """Resizes in the image's own proportions, so that all of it fits the given size, and fills the bars beside it."""

    def __init__(
        self, height: int, width: int, interpolation: v2.InterpolationMode, fill: tuple[int, int, int] | None
    ) -> None:
        """``fill``: colour of the bars, 0 to 255; None repeats the outermost pixels."""
        self._height = height
        self._width = width
        self._interpolation = interpolation
        self._fill = fill

    def __call__(self, image: Image.Image) -> Image.Image:
        scale = min(self._height / image.height, self._width / image.width)
        height = min(self._height, max(1, round(image.height * scale)))
        width = min(self._width, max(1, round(image.width * scale)))
        left, top = (self._width - width) // 2, (self._height - height) // 2
        bars = [left, top, self._width - width - left, self._height - height - top]
        image = v2.functional.resize(image, [height, width], self._interpolation)
        if self._fill is None:
            return v2.functional.pad(image, bars, padding_mode="edge")
        return v2.functional.pad(image, bars, fill=list(self._fill))


def resize_steps(preprocessing: Preprocessing) -> list[ImageStep]:
    """Returns what `data.resize` stands for, one step after the other."""
    size = (preprocessing.height, preprocessing.width)
    interpolation = v2.InterpolationMode(preprocessing.interpolation)
    if preprocessing.resize == "pad":
        return [ResizeToFit(*size, interpolation, None if preprocessing.pad_fill == "edge" else preprocessing.fill)]
    if preprocessing.resize == "squash":
        return [v2.Resize(size, interpolation)]
    return [ResizeToCover(*size, preprocessing.crop_pct, interpolation), v2.CenterCrop(size)]
