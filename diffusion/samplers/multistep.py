"""Samplers of one evaluation a step that remember the last ones: DPM-Solver++(2M) and UniPC."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from diffusion.process.process import Denoise
from diffusion.samplers.steps import Callback, Level, Levels, Progress, ignore, moved


def dpmpp(denoise: Denoise, x: Tensor, levels: Levels, callback: Callback = ignore) -> Tensor:
    """Samples by DPM-Solver++(2M) (Lu et al., "DPM-Solver++", 2022, algorithm 2): of second order, but of first where
    it begins and where it ends.

    Args:
        denoise: The denoiser.
        x: (B, C, H, W) at the first level.
        levels: N + 1 levels for N steps.
        callback: Called at each step.

    Returns:
        (B, C, H, W), the images.
    """
    previous: tuple[Level, Tensor] | None = None
    for step, (level, to) in enumerate(pairwise(levels)):
        image = denoise(x, *level)
        callback(Progress(step, level, x, image))
        x = _predicted(x, image, level, to, previous)
        previous = level, image
    return x


def unipc(denoise: Denoise, x: Tensor, levels: Levels, callback: Callback = ignore) -> Tensor:
    """Samples by UniPC of second order with B(h) = exp(h) - 1 (Zhao et al., "UniPC", NeurIPS 2023), of the arguments of
    :func:`dpmpp`: its steps, each corrected by the evaluation that the next one needs anyhow.
    """
    start = x
    previous: tuple[Level, Tensor] | None = None
    before: tuple[Level, Tensor] | None = None
    for step, (level, to) in enumerate(pairwise(levels)):
        image = denoise(x, *level)
        callback(Progress(step, level, x, image))
        if previous is not None:
            x = _corrected(start, image, level, previous, before)
        start, before = x, previous
        x = _predicted(x, image, level, to, before)
        previous = level, image
    return x


def _predicted(x: Tensor, image: Tensor, level: Level, to: Level, previous: tuple[Level, Tensor] | None) -> Tensor:
    """Takes a step with the image as it is, or as it will be in the step's middle if it goes on as it came."""
    if previous is None or to.sigma == 0:
        return moved(x, image, level, to)
    # 0 behind pure noise, which lies infinitely far back
    ahead = (to.log_snr - level.log_snr) / (level.log_snr - previous[0].log_snr)
    return moved(x, image + ahead / 2 * (image - previous[1]), level, to)


def _corrected(
    start: Tensor,
    image: Tensor,
    level: Level,
    previous: tuple[Level, Tensor],
    before: tuple[Level, Tensor] | None,
) -> Tensor:
    """Takes the step from `previous` to `level` again, now that the image at its end is known.

    Args:
        start: (B, C, H, W) at the previous level.
        image: The image seen at `level`.
        level: Where the step ends.
        previous: Where it began, and the image seen there.
        before: The same of the step before; None: the correction is of first order.
    """
    came, seen = previous
    width = level.log_snr - came.log_snr
    change = (image - seen) / 2
    if before is not None:
        # Weights of the slopes to the step's end (1) and to the one before (r < 0), from the conditions of order 2:
        # a + b = first, a + b r = second.
        r = (before[0].log_snr - came.log_snr) / width
        phi = math.expm1(-width)
        first = (-phi / width - 1) / phi
        second = 2 * ((-phi / width - 1) / -width - 0.5) / phi
        b = (first - second) / (1 - r)
        change = (first - b) * (image - seen) + b * (before[1] - seen) / r
    return moved(start, seen + change, came, level)
