"""Learning-rate schedules: pure functions of the optimizer step.

Every function returns a factor of the base rate, so that groups with rates of their own follow the same curve.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from engine.config.sections import OptimizerConfig, PlateauConfig, ScheduleConfig


def cosine(progress: float, end: float) -> float:
    """Half a cosine from 1 at ``progress`` 0 to ``end`` at 1 (Loshchilov and Hutter, SGDR, 2017, without restarts)."""
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def milestones(step: int, steps: Sequence[int], gamma: float) -> float:
    """``gamma`` to the power of the milestones passed; the step of a milestone has passed it."""
    return gamma ** bisect_right(steps, step)


def one_cycle(progress: float, rise: float, start: float, end: float) -> float:
    """Cosine from ``start`` up to 1 at ``rise``, then down to ``end`` (Smith and Topin, Super-Convergence, 2019)."""
    if progress < rise:
        return 1 - (1 - start) * 0.5 * (1 + math.cos(math.pi * progress / rise))
    return cosine((progress - rise) / (1 - rise), end)


def warm_up(step: int, steps: int, start: float) -> float:
    """Straight line from ``start`` at step 0 towards 1, which step ``steps`` would reach."""
    return start + (1 - start) * step / steps


@dataclass(frozen=True)
class Schedule:
    """Rate factor of each optimizer step, all lengths in steps."""

    config: ScheduleConfig
    total_steps: int
    warmup_steps: int
    milestone_steps: tuple[int, ...]
    warmup_start: float
    end: float

    def factor(self, step: int) -> float:
        """Factor of the base rate at optimizer step ``step``, counted from 0."""
        config = self.config
        if step < self.warmup_steps:
            return warm_up(step, self.warmup_steps, self.warmup_start)
        done, span = step - self.warmup_steps, self.total_steps - self.warmup_steps
        if config.name == "cosine":  # reaches its end, which may be 0, behind the last step: that would change nothing
            return cosine(done / max(1, span), self.end)
        if config.name == "milestones":
            return milestones(step, self.milestone_steps, config.gamma)
        if config.name == "one_cycle":
            progress = done / max(1, span - 1)  # the last step gets the end, as in torch
            return one_cycle(progress, config.one_cycle_rise, config.one_cycle_start, config.one_cycle_end)
        return 1.0  # constant; plateau multiplies by its own scale


def build_schedule(
    config: ScheduleConfig, optimizer: OptimizerConfig, steps_per_epoch: int, total_steps: int
) -> Schedule:
    """Turns epochs into steps, once."""
    warmup = config.warmup_steps
    if warmup is None:
        warmup = round(config.warmup_epochs * steps_per_epoch)
    return Schedule(
        config=config,
        total_steps=total_steps,
        warmup_steps=warmup,
        milestone_steps=tuple(round(epoch * steps_per_epoch) for epoch in config.milestones),
        warmup_start=config.warmup_lr / optimizer.lr,
        end=config.min_lr / optimizer.lr,
    )


@dataclass(frozen=True)
class Progress:
    """Best value so far of a metric, and how many evaluations in a row were no better."""

    best: float | None = None
    stale: int = 0

    def update(self, value: float, mode: str, min_delta: float) -> Progress:
        """The state after an evaluation that gave ``value``; ``mode`` is max or min. NaN never counts as progress."""
        if self.best is None:
            better = not math.isnan(value)
        else:
            better = value > self.best + min_delta if mode == "max" else value < self.best - min_delta
        return Progress(value, 0) if better else Progress(self.best, self.stale + 1)


@dataclass(frozen=True)
class Plateau:
    """State of the plateau schedule: a factor that falls when evaluations bring no progress."""

    progress: Progress = Progress()
    scale: float = 1.0

    def update(self, value: float, mode: str, config: PlateauConfig, floor: float) -> Plateau:
        """The state after an evaluation. ``floor``: least scale, that is min_lr over lr."""
        progress = self.progress.update(value, mode, config.min_delta)
        if progress.stale <= config.patience:
            return Plateau(progress, self.scale)
        return Plateau(Progress(progress.best, 0), max(floor, self.scale * config.factor))

    @staticmethod
    def from_state(state: dict) -> Plateau:
        return Plateau(Progress(**state["progress"]), state["scale"])
