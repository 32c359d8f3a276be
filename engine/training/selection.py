"""What an evaluation decides: which weights are the best, whether the rate falls, whether training ends early."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.config.optimization import PlateauConfig, PlateauSchedule
from engine.config.run import RunConfig
from engine.config.training import EarlyStoppingConfig
from engine.task.metrics import Metrics


def improves(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Returns whether ``value`` is better than ``best`` by more than ``min_delta``; NaN never is, and anything is
    better than None. ``mode``: ``max`` or ``min``."""
    if best is None:
        return not math.isnan(value)
    return value > best + min_delta if mode == "max" else value < best - min_delta


@dataclass(frozen=True)
class Progress:
    """Best value so far of a metric, and how many evaluations in a row were no better."""

    best: float | None = None
    stale: int = 0

    def update(self, value: float, mode: str, min_delta: float) -> Progress:
        """Returns the state after an evaluation that gave ``value``; NaN never counts as progress."""
        better = improves(value, self.best, mode, min_delta)
        return Progress(value, 0) if better else Progress(self.best, self.stale + 1)


@dataclass(frozen=True)
class Plateau:
    """State of the plateau schedule: a factor that falls when evaluations bring no progress."""

    progress: Progress = Progress()
    scale: float = 1.0

    def update(self, value: float, mode: str, config: PlateauConfig, floor: float) -> Plateau:
        """Returns the state after an evaluation. ``floor``: least scale, that is min_lr over lr."""
        progress = self.progress.update(value, mode, config.min_delta)
        if progress.stale <= config.patience:
            return Plateau(progress, self.scale)
        return Plateau(Progress(progress.best, 0), max(floor, self.scale * config.factor))

    @staticmethod
    def from_state(state: dict) -> Plateau:
        """Reads back what a checkpoint keeps, nested dicts."""
        return Plateau(Progress(**state["progress"]), state["scale"])


@dataclass(frozen=True)
class Selection:
    """Rules by which evaluations are judged, and the metric that they look at."""

    metric: str
    mode: str
    """``max`` or ``min``: which values of the metric are better."""
    plateau: PlateauConfig | None
    """None: the schedule does not depend on evaluations."""
    floor: float
    """Least scale of the plateau schedule."""
    early_stopping: EarlyStoppingConfig | None

    def is_best(self, value: float, best: dict[str, float]) -> bool:
        """Returns whether ``value`` is better than that of the ``best`` evaluation so far, if it has one."""
        return improves(value, best.get(self.metric), self.mode)

    def lower_rate(self, value: float, state: Plateau) -> Plateau:
        """Returns the state of the plateau schedule after an evaluation; the same under other schedules."""
        return state if self.plateau is None else state.update(value, self.mode, self.plateau, self.floor)

    def lose_patience(self, value: float, patience: Progress) -> Progress:
        """Returns the state of early stopping after an evaluation; the same if there is none."""
        if self.early_stopping is None:
            return patience
        return patience.update(value, self.mode, self.early_stopping.min_delta)

    def out_of_patience(self, patience: Progress) -> bool:
        """Returns whether early stopping, as it is configured now, ends the run."""
        return self.early_stopping is not None and patience.stale >= self.early_stopping.patience


def build_selection(config: RunConfig, metrics: Metrics) -> Selection:
    """Builds the rules of a configuration. Raises a UserError if it is not known what is best."""
    metric, mode = metrics.deciding(config)
    schedule = config.schedule
    return Selection(
        metric=metric,
        mode=mode,
        plateau=schedule.plateau if isinstance(schedule, PlateauSchedule) else None,
        floor=schedule.min_lr / config.optimizer.lr if isinstance(schedule, PlateauSchedule) else 0.0,
        early_stopping=config.evaluation.early_stopping,
    )
