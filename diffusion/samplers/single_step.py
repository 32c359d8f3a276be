"""Samplers of one evaluation a step that remember nothing: DDPM, DDIM, Euler; and Heun's, which evaluates twice."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

from diffusion.process.process import Denoise
from diffusion.samplers.steps import Callback, Level, Levels, Noise, Progress, ignore, moved

FAR = 1000.0
"""A ratio of noise to image from which on a straight line in it leads nowhere: EDM begins with 80, DDPM with 157, a
cosine table of 1000 steps with 20,000."""


def ddim(
    denoise: Denoise,
    x: Tensor,
    levels: Levels,
    callback: Callback = ignore,
    *,
    eta: float = 0.0,
    noise: Noise | None = None,
) -> Tensor:
    """Samples by Song et al., "Denoising Diffusion Implicit Models", ICLR 2021, equation 12, on any levels.

    Args:
        denoise: The denoiser.
        x: (B, C, H, W) at the first level.
        levels: N + 1 levels for N steps.
        callback: Called at each step.
        eta: Share of the ancestral noise that is drawn anew: 0 none, 1 all of it.
        noise: What is drawn; needed unless `eta` is 0.

    Returns:
        (B, C, H, W), the images.
    """
    for step, (level, to) in enumerate(pairwise(levels)):
        image = denoise(x, *level)
        callback(Progress(step, level, x, image))
        fresh = eta * ancestral_std(level, to)
        kept = math.sqrt(max(to.sigma**2 - fresh**2, 0.0))
        x = moved(x, image, level, Level(to.alpha, kept))
        if fresh > 0:
            assert noise is not None, "a sampler that draws noise needs some"
            x = x + fresh * noise(step)
    return x


def ddpm(
    denoise: Denoise, x: Tensor, levels: Levels, callback: Callback = ignore, *, noise: Noise | None = None
) -> Tensor:
    """Samples from the posterior of each level given the one before (Ho et al., 2020, equation 7), of the smaller
    variance: :func:`ddim` with all of the noise drawn anew, and of the same arguments.
    """
    return ddim(denoise, x, levels, callback, eta=1.0, noise=noise)


def ancestral_std(level: Level, to: Level) -> float:
    """Returns the standard deviation of the noisy image at `to`, given that at `level` and the image."""
    kept = to.sigma * level.alpha / to.alpha
    added = max(level.sigma**2 - kept**2, 0.0)  # variance from `to` to `level`
    return to.sigma / level.sigma * math.sqrt(added)


def euler(denoise: Denoise, x: Tensor, levels: Levels, callback: Callback = ignore) -> Tensor:
    """Follows the probability flow by Euler's method.

    Its steps are those of :func:`ddim` without noise, in whichever coordinates they are written (Karras et al., 2022,
    or rectified flow): all go straight towards the image.
    """
    return ddim(denoise, x, levels, callback)


def heun(denoise: Denoise, x: Tensor, levels: Levels, callback: Callback = ignore) -> Tensor:
    """Follows the probability flow by Heun's method: two evaluations a step, but one in the last (Karras et al., 2022,
    algorithm 1).

    The coordinates are theirs, x / alpha over sigma / alpha; where levels begin with hardly any image or none, so that
    these would be huge or infinite, they are those of rectified flow, x / (alpha + sigma) over sigma / (alpha + sigma).
    """
    offset = 1.0 if levels[0].sigma > FAR * levels[0].alpha else 0.0
    for step, (level, to) in enumerate(pairwise(levels)):
        image = denoise(x, *level)
        callback(Progress(step, level, x, image))
        there = moved(x, image, level, to)
        if to.sigma > 0:
            scale, scale_to = (part.alpha + offset * part.sigma for part in (level, to))
            at, at_to = level.sigma / scale, to.sigma / scale_to
            slope = (x / scale - image) / at
            slope_to = (there / scale_to - denoise(there, *to)) / at_to
            there = scale_to * (x / scale + (at_to - at) * (slope + slope_to) / 2)
        x = there
    return x
