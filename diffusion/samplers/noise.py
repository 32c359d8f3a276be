"""Noise of sampling: that of image i follows from (seed, i, step) alone, whatever batch it is made in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffusion.samplers.steps import Noise
from engine.seed import generator


def first_noise(seed: int, images: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Returns the noise that each image begins as: (B, C, H, W) float32, standard normal.

    Args:
        seed: Of the request.
        images: Their B numbers in it.
        shape: (C, H, W).
    """
    return _stacked(shape, [(seed, "sample", image) for image in images])


def step_noise(seed: int, images: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Noise:
    """Returns the noise of each step for a sampler that draws some, of the arguments of :func:`first_noise`."""
    return lambda step: _stacked(shape, [(seed, "sample", image, step) for image in images]).to(device)


def _stacked(shape: tuple[int, int, int], keys: Sequence[tuple[int | str, ...]]) -> Tensor:
    drawn = [generator(*key).standard_normal(shape, dtype=np.float32) for key in keys]
    return torch.from_numpy(np.stack(drawn))
