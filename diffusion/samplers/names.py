"""Samplers by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from diffusion.samplers.multistep import dpmpp, unipc
from diffusion.samplers.single_step import ddim, ddpm, euler, heun
from diffusion.samplers.steps import Noise

Sampler = Callable[..., Tensor]
"""Called with a denoiser, noisy images, levels and, if wanted, a callback."""

SAMPLERS: dict[str, Sampler] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "heun": heun,
    "dpmpp": dpmpp,
    "unipc": unipc,
}


def bound_sampler(name: str, eta: float, noise: Noise) -> Sampler:
    """Returns the sampler of that name, with what it takes beside the four arguments of all.

    Args:
        name: A key of :data:`SAMPLERS`.
        eta: For ddim.
        noise: For those that draw some.
    """
    if name == "ddim":
        return partial(ddim, eta=eta, noise=noise)
    return partial(ddpm, noise=noise) if name == "ddpm" else SAMPLERS[name]
