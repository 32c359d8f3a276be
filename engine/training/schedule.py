"""What the number of an optimizer step decides: the learning rate, and when to evaluate, record and save.

Every curve gives a factor of the base rate, so that groups with rates of their own follow the same one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from engine.config.optimization import CosineSchedule, MilestonesSchedule, OneCycleSchedule, ScheduleConfig, WarmUp
from engine.config.run import CheckpointConfig, LoggingConfig
from engine.config.training import EvaluationConfig


def cosine(progress: float, end: float) -> float:
    """Falls by half a cosine from 1 at ``progress`` 0 to ``end`` at 1 (Loshchilov and Hutter, 2017; no restarts)."""
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def one_cycle(progress: float, rise: float, start: float, end: float) -> float:
    """Rises by a cosine from ``start`` to 1 at ``rise``, then falls to ``end`` (Smith and Topin, 2019)."""
    if progress < rise:
        return 1 - (1 - start) * 0.5 * (1 + math.cos(math.pi * progress / rise))
    return cosine((progress - rise) / (1 - rise), end)


@dataclass(frozen=True)
class Schedule:
    """Rate factor of each optimizer step; the configuration's epochs become steps here."""

    config: ScheduleConfig
    lr: float
    """Base rate, which the factors multiply."""
    steps_per_epoch: int
    total_steps: int

    @cached_property
    def warmup_steps(self) -> int:
        """Returns the steps before the base rate is reached."""
        if not isinstance(self.config, WarmUp):
            return 0
        return self.config.warmup_steps or round(self.config.warmup_epochs * self.steps_per_epoch)

    @cached_property
    def milestone_steps(self) -> tuple[int, ...]:
        """Returns the steps at which the rate falls under the milestones schedule."""
        epochs = self.config.milestones if isinstance(self.config, MilestonesSchedule) else []
        return tuple(round(epoch * self.steps_per_epoch) for epoch in epochs)

    def factor(self, step: int) -> float:
        """Returns the factor of the base rate at optimizer step ``step``, counted from 0."""
        config = self.config
        if isinstance(config, WarmUp) and step < self.warmup_steps:
            start = config.warmup_lr / self.lr
            return start + (1 - start) * step / self.warmup_steps  # a straight line
        done, span = step - self.warmup_steps, self.total_steps - self.warmup_steps
        if isinstance(config, CosineSchedule):
            # It reaches its end, which may be 0, behind the last step: that would change nothing.
            return cosine(done / max(1, span), config.min_lr / self.lr)
        if isinstance(config, MilestonesSchedule):
            return config.gamma ** bisect_right(self.milestone_steps, step)  # a milestone's own step has passed it
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


@dataclass(frozen=True)
class Intervals:
    """Length of a run and what is due after which optimizer steps."""

    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    logging: LoggingConfig
    steps_per_epoch: int
    total_steps: int

    @property
    def evaluate_every(self) -> int:
        """Returns the steps between two evaluations."""
        return self.evaluation.every_steps or (self.evaluation.every_epochs or 1) * self.steps_per_epoch

    def evaluation_due(self, step: int) -> bool:
        """Returns whether the weights after ``step`` steps are to be evaluated; the last ones always are."""
        return self._at(step, self.evaluate_every)

    def record_due(self, step: int) -> bool:
        """Returns whether a training record ends with step ``step``, as it does with each epoch."""
        return step % self.logging.every_steps == 0 or self._at(step, self.steps_per_epoch)

    def save_due(self, step: int) -> bool:
        """Returns whether a checkpoint is due after ``step`` steps, whatever the clock says."""
        return self.checkpoint.every_steps is not None and self._at(step, self.checkpoint.every_steps)

    def _at(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.total_steps
