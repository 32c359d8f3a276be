"""Denoisers that are known exactly, and networks that answer something."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.process.objectives import Objective
from diffusion.process.process import Denoise


def wave(x: Tensor, angle: Tensor, labels: Tensor | None = None) -> Tensor:
    """Answers something smooth that depends on the image and on the level, as a network does."""
    angle = angle.view(-1, *[1] * (x.dim() - 1))
    return (1.7 * x + 0.3 * x.roll(1, -1) + angle).tanh() + 0.5 * (3 * angle).cos()


def mixture(points: Tensor) -> Denoise:
    """Returns the exact denoiser of a data set: the mean of its images (N, C, H, W) given a noisy one."""

    def denoise(noisy: Tensor, alpha: float, sigma: float) -> Tensor:
        distances = (noisy[:, None] - alpha * points[None]).square().flatten(2).sum(-1)
        weights = (-distances / (2 * sigma**2)).softmax(-1)
        return torch.einsum("bn,nchw->bchw", weights, points)

    return denoise


def perfect_network(denoise: Denoise, objective: Objective) -> Callable[..., Tensor]:
    """Returns the network of an objective that a denoiser amounts to: it answers the target of what that sees."""

    def network(x: Tensor, angle: Tensor, labels: Tensor | None = None) -> Tensor:
        assert (angle == angle[0]).all()
        alpha, sigma = float(angle[0].cos()), float(angle[0].sin())
        noisy = x * objective.scale(alpha, sigma)
        image = denoise(noisy, alpha, sigma)
        return objective.target(image, (noisy - alpha * image) / sigma, alpha, sigma)

    return network
