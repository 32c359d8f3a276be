"""What the number of an optimizer step decides: the learning rate, and when to evaluate, record and save.

Every curve gives a factor of the base rate, so that groups with rates of their own follow the same one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from engine.config.optimization import (
    CosineSchedule,
    MilestonesSchedule,
    OneCycleSchedule,
    OptimizerConfig,
    ScheduleConfig,
    WarmUp,
)
from engine.config.run import CheckpointConfig, LoggingConfig
from engine.config.training import EvaluationConfig


def cosine(progress: float, end: float) -> float:
    """Falls by half a cosine from 1 at ``progress`` 0 to ``end`` at 1 (Loshchilov and Hutter, SGDR, 2017, no
    restarts)."""
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def milestones(step: int, steps: Sequence[int], gamma: float) -> float:
    """Returns ``gamma`` to the power of the milestones passed; the step of a milestone has passed it."""
    return gamma ** bisect_right(steps, step)


def one_cycle(progress: float, rise: float, start: float, end: float) -> float:
    """Rises by a cosine from ``start`` to 1 at ``rise``, then falls to ``end`` (Smith and Topin, Super-Convergence,
    2019)."""
    if progress < rise:
        return 1 - (1 - start) * 0.5 * (1 + math.cos(math.pi * progress / rise))
    return cosine((progress - rise) / (1 - rise), end)


def warm_up(step: int, steps: int, start: float) -> float:
    """Rises in a straight line from ``start`` at step 0 towards 1, which step ``steps`` would reach."""
    return start + (1 - start) * step / steps


@dataclass(frozen=True)
class Schedule:
    """Rate factor of each optimizer step, all lengths in steps."""

    config: ScheduleConfig
    lr: float
    """Base rate, which the factors multiply."""
    total_steps: int
    warmup_steps: int
    milestone_steps: tuple[int, ...]
    warmup_start: float
    end: float

    def factor(self, step: int) -> float:
        """Returns the factor of the base rate at optimizer step ``step``, counted from 0."""
        config = self.config
        if step < self.warmup_steps:
            return warm_up(step, self.warmup_steps, self.warmup_start)
        done, span = step - self.warmup_steps, self.total_steps - self.warmup_steps
        if isinstance(config, CosineSchedule):
            # It reaches its end, which may be 0, behind the last step: that would change nothing.
            return cosine(done / max(1, span), self.end)
        if isinstance(config, MilestonesSchedule):
            return milestones(step, self.milestone_steps, config.gamma)
        if isinstance(config, OneCycleSchedule):
            progress = done / max(1, span - 1)  # the last step gets the end, as in torch
            return one_cycle(progress, config.one_cycle_rise, config.one_cycle_start, config.one_cycle_end)
        return 1.0  # constant; plateau multiplies by its own scale

    def rate(self, step: int, plateau_scale: float) -> float:
        """Returns the base learning rate of optimizer step ``step``; other schedules than plateau ignore its scale."""
        factor = self.factor(step)
        if self.config.name == "plateau":
            factor *= plateau_scale
        return self.lr * factor


def build_schedule(
    config: ScheduleConfig, optimizer: OptimizerConfig, steps_per_epoch: int, total_steps: int
) -> Schedule:
    """Turns epochs into steps, once."""
    warmup, start = 0, 1.0
    if isinstance(config, WarmUp):
        warmup = config.warmup_steps or round(config.warmup_epochs * steps_per_epoch)
        start = config.warmup_lr / optimizer.lr
    epochs = config.milestones if isinstance(config, MilestonesSchedule) else []
    return Schedule(
        config=config,
        lr=optimizer.lr,
        total_steps=total_steps,
        warmup_steps=warmup,
        milestone_steps=tuple(round(epoch * steps_per_epoch) for epoch in epochs),
        warmup_start=start,
        end=config.min_lr / optimizer.lr if isinstance(config, CosineSchedule) else 0.0,
    )


@dataclass(frozen=True)
class Intervals:
    """Length of a run and what is due after which optimizer steps, all counted in steps."""

    total_steps: int
    steps_per_epoch: int
    evaluate_every: int
    record_every: int
    save_every: int | None
    """None: after evaluations alone."""
    save_minutes: float | None
    """Minutes between checkpoints, by rank 0's clock; None: not by the clock."""

    def evaluation_due(self, step: int) -> bool:
        """Returns whether the weights after ``step`` steps are to be evaluated; the last ones always are."""
        return self._at(step, self.evaluate_every)

    def record_due(self, step: int) -> bool:
        """Returns whether a training record ends with step ``step``, as it does with each epoch."""
        return step % self.record_every == 0 or self._at(step, self.steps_per_epoch)

    def save_due(self, step: int) -> bool:
        """Returns whether a checkpoint is due after ``step`` steps, whatever the clock says."""
        return self.save_every is not None and self._at(step, self.save_every)

    def _at(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.total_steps


def build_intervals(
    evaluation: EvaluationConfig,
    checkpoint: CheckpointConfig,
    logging: LoggingConfig,
    steps_per_epoch: int,
    total_steps: int,
) -> Intervals:
    """Turns epochs into steps, once."""
    return Intervals(
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        evaluate_every=evaluation.every_steps or (evaluation.every_epochs or 1) * steps_per_epoch,
        record_every=logging.every_steps,
        save_every=checkpoint.every_steps,
        save_minutes=checkpoint.every_minutes,
    )
