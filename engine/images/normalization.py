"""From 8-bit images to the values that a model expects, on its device."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.images.preprocessing import Preprocessing


class Normalization:
    """Subtracts the mean and divides by the deviation of each channel: uint8 (B, 3, H, W) to float32."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._mean, self._std = (
            torch.tensor(values, device=device).view(3, 1, 1) * 255
            for values in (preprocessing.mean, preprocessing.std)
        )

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().sub_(self._mean).div_(self._std)
