"""Which levels a sampler goes through."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffusion.process.schedules import RHO, Schedule
from diffusion.samplers.steps import CLEAN, Level

Name = Literal["uniform", "trailing", "karras"]

MOST_RATIO = 160.0
"""Most noise, as sigma / alpha, that karras begins with; an image's share is 0.6 % there."""


def spaced(schedule: Schedule, steps: int, spacing: Name = "trailing") -> list[Level]:
    """Returns the levels of `steps` steps: that many, with less noise each, and :data:`CLEAN`.

    - uniform: times at equal distances, from 1 to the schedule's earliest; of a table, rounded to its steps
    - trailing: times at equal distances, from 1 to 1 / steps (Lin et al., 2024, table 2)
    - karras: sigma / alpha at equal distances of its seventh root (Karras et al., 2022, equation 5)

    Raises:
        ValueError: there are no steps, or more than the schedule's table has.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps} is too few; one is the least")
    if schedule.steps is not None and steps > schedule.steps and spacing != "karras":
        raise ValueError(f"steps: {steps} is more than the {schedule.steps} that the process was trained on")
    if spacing == "karras":
        alpha, sigma = _karras(schedule, steps)
    else:
        alpha, sigma = schedule.at(_times(schedule, steps, spacing))
    return [*(Level(*level) for level in zip(alpha.tolist(), sigma.tolist(), strict=True)), CLEAN]


def _times(schedule: Schedule, steps: int, spacing: Name) -> Tensor:
    """Returns decreasing times (steps,) float64, the first 1."""
    share = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    if schedule.steps is None:
        return 1 + share * ((schedule.earliest if spacing == "uniform" else 1 / steps) - 1)
    count = schedule.steps
    if spacing == "uniform":
        return (((count - 1) * (1 - share)).round() + 1) / count  # rounded as step numbers from 0, as others do
    return (count - torch.arange(steps, dtype=torch.float64) * count / steps).round() / count


def _karras(schedule: Schedule, steps: int) -> tuple[Tensor, Tensor]:
    """Returns alpha and sigma of the levels, (steps,) each."""
    alpha, sigma = schedule.at(torch.tensor([1.0, schedule.earliest]))
    most, least = (min(ratio, MOST_RATIO) ** (1 / RHO) for ratio in (sigma / alpha).tolist())
    share = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    ratio = (most + share * (least - most)) ** RHO
    return schedule.scaled(torch.ones_like(ratio), ratio)


def start(noise: Tensor, levels: list[Level]) -> Tensor:
    """Returns what a sampler begins with: noise (B, C, H, W) at the first level."""
    return levels[0].sigma * noise
