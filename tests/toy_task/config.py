"""The task's configuration, and what can be said of one without torch."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.run import RunConfig
from engine.task.metrics import Metrics
from engine.task.preflight import Checked, refusals


class CurveConfig(RunConfig):
    """Everything that fitting a curve depends on."""

    points: int = 96
    """Points of train; val has a third as many."""


METRICS = Metrics({"loss": "min", "r2": "max"}, "r2")


def metrics_of(config: CurveConfig) -> Metrics:
    return METRICS


def look(config: CurveConfig) -> Iterator[Checked]:
    from engine.data.batch_plan import BatchLayout

    points, batch = config.points, config.training.global_batch_size
    yield Checked([f"train: {points} points"], errors=refusals(lambda: BatchLayout(points, batch)))
