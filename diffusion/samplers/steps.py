"""What every sampler takes and shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor


class Level(NamedTuple):
    """Shares of image and noise in a noisy image."""

    alpha: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """Half the logarithm of the signal-to-noise ratio: log(alpha / sigma), infinite at both ends."""
        if self.alpha == 0:
            return -math.inf
        return math.inf if self.sigma == 0 else math.log(self.alpha / self.sigma)


CLEAN = Level(1.0, 0.0)
"""The level of an image: where every sampler ends."""


class Progress(NamedTuple):
    """What a callback is told of a step."""

    step: int
    level: Level
    """Of `noisy`."""
    noisy: Tensor
    """(B, C, H, W) before the step."""
    image: Tensor
    """(B, C, H, W), the image that the denoiser sees in it."""


Levels = Sequence[Level]
"""Levels to go through, with less noise each; the last is :data:`CLEAN`."""
Noise = Callable[[int], Tensor]
"""Returns the standard normal noise (B, C, H, W) of a step, counted from 0."""
Callback = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Does nothing with a step's progress."""


def moved(x: Tensor, image: Tensor, level: Level, to: Level) -> Tensor:
    """Moves to another level along the straight line through `x` and its `image`: with the same noise in it."""
    return to.sigma / level.sigma * x + (to.alpha - level.alpha * to.sigma / level.sigma) * image
