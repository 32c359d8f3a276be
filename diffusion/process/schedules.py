"""Shares of image and noise over time: a noisy image is z = alpha * image + sigma * noise.

Time runs from 0, an image, to 1, noise. Everything is computed in double precision: a network sees only the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Name = Literal["linear", "cosine", "sigmoid", "flow", "edm"]

LEAST_ALPHA = 1e-6
"""An alpha below counts as 0: cos(pi / 2) is 6e-17, and what is divided by that is no image."""
BETAS = (1e-4, 0.02)
"""First and last variance that is added in a step, of 1000 steps (Ho et al., "Denoising Diffusion Probabilistic
Models", NeurIPS 2020)."""
SIGMAS = (0.002, 80.0)
"""Least and most noise of Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022."""
RHO = 7.0
"""Exponent that has Karras et al. spend their steps on little noise."""
EARLIEST = 1e-3
"""Time at which a schedule without steps is clean enough: that of the first of 1000 steps."""


@dataclass(frozen=True)
class Schedule:
    """Shares of image and noise as functions of time. Impossible values raise ``ValueError`` naming the field.

    linear, cosine and sigmoid keep the variance: alpha^2 + sigma^2 = 1. flow is the straight line of rectified flow:
    alpha + sigma = 1. edm leaves the image alone: alpha = 1.
    """

    name: Name = "cosine"
    steps: int | None = None
    """Steps of the table that DDPM's family is trained on; None: any time between 0 and 1, as flow and edm have it."""
    zero_terminal_snr: bool = False
    """Rescales so that nothing of the image is left at time 1 (Lin et al., "Common Diffusion Noise Schedules and Sample
    Steps are Flawed", WACV 2024)."""
    shift: float = 1.0
    """What sigma / alpha is multiplied by at every time, see :func:`size_shift`."""

    def __post_init__(self) -> None:
        if self.name in ("flow", "edm") and (self.steps is not None or self.zero_terminal_snr):
            raise ValueError(f"steps and zero_terminal_snr are for linear, cosine and sigmoid, not for {self.name}")
        if self.steps is not None and self.steps < 2:
            raise ValueError(f"steps must be at least 2, not {self.steps}")
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift must be positive, not {self.shift}")

    @property
    def earliest(self) -> float:
        """Least time that is trained on and that sampling ends with, before the image itself."""
        if self.steps is not None:
            return 1 / self.steps
        return 0.0 if self.name == "edm" else EARLIEST

    @property
    def ends_in_noise(self) -> bool:
        """Tells whether nothing of the image is left at time 1: alpha is 0."""
        return bool(self.at(torch.ones(1))[0] == 0)

    def at(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Returns alpha and sigma, float64 of the shape of `time`, which is in [0, 1].

        Of a table of T steps, step i = 1 .. T stands for the times above (i - 1) / T up to i / T.
        """
        time = time.double()
        if self.steps is not None:
            index = (time * self.steps - 1e-3).ceil().long() - 1  # a little less: 0.07 * 100 is more than 7
            table = _table(self.name, self.steps, self.zero_terminal_snr, time.device)
            alpha, sigma = table[:, index.clamp(0, self.steps - 1)]
        else:
            alpha, sigma = _curve(self.name, time, self.zero_terminal_snr)
        alpha, sigma = self.scaled(alpha, sigma * self.shift)
        end = alpha < LEAST_ALPHA
        return alpha.masked_fill(end, 0.0), sigma.masked_fill(end, 1.0)

    def scaled(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Multiplies both by what brings them to this schedule's scale; their ratio stays."""
        if self.name == "edm":
            return torch.ones_like(alpha), sigma / alpha
        total = alpha + sigma if self.name == "flow" else torch.hypot(alpha, sigma)
        return alpha / total, sigma / total


def size_shift(size: tuple[int, int], base: int = 32) -> float:
    """Returns the shift of images of `size` pixels, for a schedule that suits images of `base` x `base`.

    The more pixels an image has, the more noise its shapes survive (Hoogeboom et al., "simple diffusion", ICML 2023,
    section 3.1; Esser et al., "Scaling Rectified Flow Transformers", ICML 2024, section 5.3.2).
    """
    return math.sqrt(size[0] * size[1]) / base


def _curve(name: str, time: Tensor, zero_terminal_snr: bool) -> tuple[Tensor, Tensor]:
    """Returns alpha and sigma of a schedule without steps."""
    if name == "flow":
        return 1 - time, time
    if name == "edm":
        least, most = (sigma ** (1 / RHO) for sigma in SIGMAS)
        return torch.ones_like(time), (least + time * (most - least)) ** RHO
    if name == "cosine":
        return (time * math.pi / 2).cos(), (time * math.pi / 2).sin()
    log_alpha = _log_alpha(name, time)
    if not zero_terminal_snr:
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()
    alpha = _rescaled(log_alpha.exp(), torch.ones_like(time), _log_alpha(name, torch.ones_like(time)).exp())
    return alpha, (1 - alpha.square()).sqrt()


def _log_alpha(name: str, time: Tensor) -> Tensor:
    """Returns the logarithm of alpha where infinitely many steps add betas that rise linearly, or as a sigmoid does."""
    first, last = (1000 * beta for beta in BETAS)
    if name == "linear":
        risen = time.square() / 2
    else:
        risen = (F.softplus(12 * time - 6) - F.softplus(time.new_tensor(-6.0))) / 12
    return -(first * time + (last - first) * risen) / 2


def _rescaled(alpha: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Shifts and stretches alpha so that `last` becomes 0 and `first` stays."""
    return (alpha - last) * first / (first - last)


@lru_cache(maxsize=8)
def _table(name: str, steps: int, zero_terminal_snr: bool, device: torch.device) -> Tensor:
    """Returns alpha and sigma of each step: (2, steps). Shared, hence not to be written to."""
    with torch.inference_mode(False):
        alpha = torch.cumprod(1 - _betas(name, steps), 0).sqrt()
        if zero_terminal_snr:
            alpha = _rescaled(alpha, alpha[0], alpha[-1])
        return torch.stack([alpha, (1 - alpha.square()).sqrt()]).to(device)


def _betas(name: str, steps: int) -> Tensor:
    """Returns the variance that each step adds, scaled so that any number of steps ends alike."""
    if name == "cosine":  # Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021
        time = torch.arange(steps + 1, dtype=torch.float64) / steps
        kept = ((time + 0.008) / 1.008 * math.pi / 2).cos().square()
        return (1 - kept[1:] / kept[:-1]).clamp(max=0.999)
    rise = torch.linspace(0, 1, steps, dtype=torch.float64)
    if name == "sigmoid":
        rise = (12 * rise - 6).sigmoid()
    return ((BETAS[0] + (BETAS[1] - BETAS[0]) * rise) * 1000 / steps).clamp(max=0.999)
