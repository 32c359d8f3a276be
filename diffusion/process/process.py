"""A diffusion process: schedule, objective, weighting and times together, over any network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from diffusion.process.objectives import Objective
from diffusion.process.schedules import Schedule
from diffusion.process.times import Times
from diffusion.process.weightings import Name as Weighting
from diffusion.process.weightings import loss_weight

Denoise = Callable[[Tensor, float, float], Tensor]
"""Estimates the images (B, C, H, W) in noisy ones: D(z, alpha, sigma), where z = alpha * image + sigma * noise."""


class Network(Protocol):
    """What is trained."""

    def __call__(self, x: Tensor, angle: Tensor, labels: Tensor | None, /) -> Tensor:
        """Maps scaled noisy images (B, C, H, W) to answers of that shape.

        Args:
            x: The images.
            angle: (B,) atan2(sigma, alpha), from 0 (image) to pi / 2 (noise).
            labels: (B,) int64 classes, of which the last is of images without one; None for a network without classes.
        """
        ...


class Losses(NamedTuple):
    """Errors of a batch, sample by sample."""

    loss: Tensor
    """(B,) weighted squared error of the network's output, mean over pixels: what is trained on."""
    image_error: Tensor
    """(B,) squared error of the image, mean over pixels: the same measure for every objective."""


@dataclass(frozen=True)
class Process:
    """How images become noise, and what a network learns of it. Parts that contradict raise ``ValueError``."""

    schedule: Schedule = field(default_factory=Schedule)
    objective: Objective = field(default_factory=Objective)
    weighting: Weighting = "none"
    times: Times = field(default_factory=Times)
    gamma: float = 5.0
    """Bound of min_snr."""

    def __post_init__(self) -> None:
        if self.objective.name == "eps" and self.schedule.ends_in_noise:
            raise ValueError(
                f"objective eps says nothing of the image where none of it is left, as at the end of this "
                f"{self.schedule.name} schedule; choose the objective v, x0, flow or edm, or a schedule with steps and "
                "without zero_terminal_snr"
            )

    def losses(self, network: Network, images: Tensor, labels: Tensor | None, noise: Tensor, uniform: Tensor) -> Losses:
        """Computes the errors of `network` on a batch.

        Args:
            network: See :class:`Network`.
            images: (B, C, H, W) in [-1, 1].
            labels: (B,) as for the network.
            noise: (B, C, H, W), standard normal.
            uniform: (B,) in [0, 1), what the times follow from.
        """
        exact = self.times.level(uniform, self.schedule)
        alpha, sigma = (part.to(images.dtype).view(-1, 1, 1, 1) for part in exact)
        noisy = alpha * images + sigma * noise
        angle = torch.atan2(exact[1], exact[0]).to(images.dtype)
        output = network(noisy / self.objective.scale(alpha, sigma), angle, labels)
        error = (output - self.objective.target(images, noise, alpha, sigma)).square().mean((1, 2, 3))
        weight = loss_weight(self.weighting, self.objective, *exact, gamma=self.gamma)
        gain = self.objective.gain(*exact) ** 2 * torch.ones_like(weight)
        return Losses(error * weight.to(error.dtype), error.detach() * gain.to(error.dtype))

    def denoiser(self, network: Network, labels: Tensor | None) -> Denoise:
        """Returns D(z, alpha, sigma) of `network`, for images of the classes `labels` (B,).

        It takes levels of any scale and any schedule, so that every sampler goes with every objective.
        """

        def denoise(noisy: Tensor, alpha: float, sigma: float) -> Tensor:
            angle = noisy.new_full((len(noisy),), math.atan2(sigma, alpha))
            output = network(noisy / self.objective.scale(alpha, sigma), angle, labels).to(noisy.dtype)
            return self.objective.image(output, noisy, alpha, sigma)

        return denoise
