"""What evaluations decide: the best weights, a lower rate, an early end."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch

from engine.config.optimization import PlateauConfig, ScheduleConfig
from engine.config.run import RunConfig
from engine.task.metrics import Direction, Metrics
from engine.training.selection import Plateau, Progress, build_selection
from tests.sections import section

BASE = 0.5
DIRECTIONS: dict[str, Direction | None] = {"top1": "max", "top5": "max", "loss": "min", "score": None}


def metrics(default: str = "top1") -> Metrics:
    """What a task measures."""
    return Metrics(DIRECTIONS, default)


def run(schedule: ScheduleConfig | None = None, **evaluation: Any) -> RunConfig:
    """A run whose rate is :data:`BASE`."""
    config = RunConfig.model_validate({"optimizer": {"name": "sgd", "lr": BASE}, "evaluation": evaluation})
    return config if schedule is None else config.model_copy(update={"schedule": schedule})


@pytest.mark.parametrize(
    "mode, values, best, stale",
    [
        ("max", [0.5, 0.6, 0.6, 0.55], 0.6, 2),
        ("max", [0.5, 0.505], 0.5, 1),  # less than min_delta more
        ("max", [0.5, 0.505, 0.515], 0.515, 0),  # small gains add up
        ("min", [2.0, 1.0, 1.5], 1.0, 1),
        ("min", [2.0, 1.995], 2.0, 1),
        ("min", [math.inf, 3.0], 3.0, 0),
        ("max", [math.nan, 0.1, math.nan, math.nan], 0.1, 2),
        ("min", [math.nan, math.nan], None, 2),
    ],
)
def test_progress(mode: str, values: list[float], best: float | None, stale: int) -> None:
    progress = Progress()
    for value in values:
        progress = progress.update(value, mode, min_delta=0.01)
    assert progress == Progress(best, stale)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_as_torch(mode: Literal["min", "max"]) -> None:
    config = PlateauConfig(factor=0.3, patience=2, min_delta=0.05)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.3, patience=2, threshold=0.05, threshold_mode="abs", min_lr=0.02, eps=0
    )
    plateau, sign, seen = Plateau(), 1 if mode == "max" else -1, set()
    losses = [0, 0.1, 0.12, 0.13, 0.14, 0.2, 0.2, math.nan, 0.1, 0.3] + 12 * [0.31]
    for value in losses:
        theirs.step(sign * value)
        plateau = plateau.update(sign * value, mode, config, floor=0.02 / BASE)
        assert BASE * plateau.scale == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        seen.add(plateau.scale)
    assert len(seen) == 4 and min(seen) == 0.02 / BASE


def test_plateau_goes_on_from_its_saved_state() -> None:
    config, values = PlateauConfig(factor=0.5, patience=1), [0.5, 0.4, 0.3, 0.6, 0.5, 0.5, 0.5, 0.5]
    for cut in range(len(values)):
        plain, resumed = Plateau(), Plateau()
        for value in values:
            plain = plain.update(value, "max", config, floor=0.0)
        for number, value in enumerate(values):
            if number == cut:
                state = {"progress": {"best": resumed.progress.best, "stale": resumed.progress.stale}}
                resumed = Plateau.from_state({**state, "scale": resumed.scale})
            resumed = resumed.update(value, "max", config, floor=0.0)
        assert resumed == plain
    assert plain.scale == 0.125


@pytest.mark.parametrize(
    ("metric", "mode", "value", "best", "better"),
    [
        ("top1", None, 0.5, {}, True),
        ("top1", None, 0.5, {"step": 3, "epoch": 1.0, "top1": 0.5}, False),
        ("top1", None, 0.6, {"step": 3, "epoch": 1.0, "top1": 0.5}, True),
        ("loss", None, 0.4, {"step": 3, "epoch": 1.0, "loss": 0.5}, True),
        ("loss", None, 0.6, {"step": 3, "epoch": 1.0, "loss": 0.5}, False),
        ("score", "min", 0.4, {"step": 3, "epoch": 1.0, "score": 0.5}, True),
        ("top1", None, math.nan, {}, False),
        ("top1", None, 0.1, {"step": 3, "epoch": 1.0, "loss": 0.5}, True),  # of another metric, before a change
    ],
)
def test_the_best_is_that_of_the_metric_and_its_direction(
    metric: str, mode: Literal["max", "min"] | None, value: float, best: dict[str, float], better: bool
) -> None:
    selection = build_selection(run(metric=metric, mode=mode), metrics())
    assert selection.is_best(value, best) == better


def test_the_tasks_metric_counts_where_none_is_named() -> None:
    assert build_selection(run(), metrics("loss")).metric == "loss"
    assert build_selection(run(), metrics("loss")).mode == "min"
    assert build_selection(run(metric="top5"), metrics("loss")).metric == "top5"


def test_only_the_plateau_schedule_lowers_the_rate_and_not_below_its_floor() -> None:
    schedule = section(ScheduleConfig, name="plateau", min_lr=0.2, plateau=PlateauConfig(factor=0.5, patience=0))
    lowering = build_selection(run(schedule), metrics("top1"))
    other = build_selection(run(), metrics("top1"))
    state, scales = Plateau(), []
    for _ in range(4):
        state = lowering.lower_rate(0.5, state)
        scales.append(state.scale)
    assert scales == [1.0, 0.5, 0.4, 0.4]
    assert other.lower_rate(0.1, state) == state


def test_patience_is_lost_and_runs_out_only_with_early_stopping() -> None:
    stopping = run(early_stopping={"patience": 2, "min_delta": 0.1})
    with_it, without = (build_selection(config, metrics("top1")) for config in (stopping, run()))
    patience, ended = Progress(), []
    for value in (0.5, 0.55, 0.7, 0.7, 0.7):
        patience = with_it.lose_patience(value, patience)
        ended.append(with_it.out_of_patience(patience))
    assert ended == [False, False, False, False, True]
    assert not without.out_of_patience(patience)
    assert without.lose_patience(0.1, patience) == patience
