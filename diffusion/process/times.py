"""From a uniform number to the level that a sample is trained at: which times are trained on how often."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffusion.process.schedules import Schedule

Name = Literal["uniform", "logit_normal", "log_normal"]


@dataclass(frozen=True)
class Times:
    """Distribution of training times, sampled by the inverse of its distribution function: what stratifies the uniform
    numbers stratifies the times.

    - uniform: every time alike
    - logit_normal: log(t / (1 - t)) is normally distributed (Esser et al., 2024); middle times are the most frequent
    - log_normal: log(sigma / alpha) is normally distributed, whatever the schedule (Karras et al., 2022)
    """

    name: Name = "uniform"
    mean: float = 0.0
    """Mean of the normal distribution; -1.2 as by Karras et al."""
    std: float = 1.0
    """Its standard deviation; 1.2 as by Karras et al."""

    def __post_init__(self) -> None:
        if not 0 < self.std < math.inf:
            raise ValueError(f"std must be positive, not {self.std}")

    def level(self, uniform: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Returns alpha and sigma, float64 (B,), for numbers in [0, 1); sigma is never 0."""
        uniform = uniform.double()
        if self.name == "uniform":
            return schedule.at(uniform.clamp(min=schedule.earliest))
        normal = self.mean + self.std * torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9))
        if self.name == "logit_normal":
            return schedule.at(normal.sigmoid().clamp(min=schedule.earliest))
        return schedule.scaled(torch.ones_like(normal), normal.exp() * schedule.shift)
