"""Random erasing of 8-bit images (Zhong et al., arXiv:1708.04896), as timm draws it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from classification.augmentation.sections import RandomErasingConfig
from engine.images.preprocessing import Channels


def erase(
    image: Tensor, config: RandomErasingConfig, mean: Channels, std: Channels, rng: np.random.Generator
) -> Tensor:
    """Fills random rectangles of ``image`` (uint8, 3 x H x W) with noise, in place, and returns it.

    The noise is normal around ``mean`` with deviation ``std`` (of values in [0, 1]): standard normal once normalised,
    but for what is clipped to [0, 255]. The distribution of rectangles is that of timm's ``RandomErasing``.
    """
    if rng.random() >= config.probability:
        return image
    _, height, width = image.shape
    count = int(rng.integers(1, config.count + 1))
    for _ in range(count):
        rectangle = _rectangle(height, width, count, config, rng)
        if rectangle is not None:
            rows, columns = rectangle
            shape = (3, rows.stop - rows.start, columns.stop - columns.start)
            noise = rng.standard_normal(shape, np.float32)
            values = (noise * np.reshape(std, (3, 1, 1)) + np.reshape(mean, (3, 1, 1))) * 255
            image[:, rows, columns] = torch.from_numpy(values.round().clip(0, 255).astype(np.uint8))
    return image


def _rectangle(
    height: int, width: int, count: int, config: RandomErasingConfig, rng: np.random.Generator
) -> tuple[slice, slice] | None:
    """Rows and columns of one of ``count`` rectangles; None if none was found that is smaller than the image."""
    log_aspect = math.log(config.min_aspect)
    for _ in range(10):
        area = rng.uniform(*config.area) * height * width / count
        aspect = math.exp(rng.uniform(log_aspect, -log_aspect))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < rows < height and 0 < columns < width:
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            return slice(top, top + rows), slice(left, left + columns)
    return None
