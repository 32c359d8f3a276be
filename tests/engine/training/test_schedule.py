"""Learning rates, against independent formulas and against the schedulers of torch and timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from engine.config.optimization import ScheduleConfig
from engine.config.run import CheckpointConfig, LoggingConfig
from engine.config.training import EvaluationConfig
from engine.training.schedule import Intervals, Schedule, cosine, one_cycle
from tests.sections import section

BASE = 0.5


def make(*, steps_per_epoch: int = 10, total_steps: int = 100, **config: Any) -> Schedule:
    return Schedule(section(ScheduleConfig, **config), BASE, steps_per_epoch, total_steps)


def rates(schedule: Schedule, steps: Sequence[int] | None = None) -> list[float]:
    return [BASE * schedule.factor(step) for step in (steps or range(schedule.total_steps))]


def torch_rates(scheduler: type, steps: int, **options: Any) -> list[float]:
    """What torch's scheduler gives for each of ``steps`` steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    current, found = scheduler(optimizer, **options), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        current.step()
    return found


# -- shapes ----------------------------------------------------------------------------------------------------------


def test_cosine_is_half_a_cosine() -> None:
    assert cosine(0.0, 0.1) == pytest.approx(1.0)
    assert cosine(0.5, 0.1) == pytest.approx(0.55)
    assert cosine(1 / 3, 0.0) == pytest.approx(0.75)
    assert cosine(1.0, 0.1) == pytest.approx(0.1)
    assert cosine(1.7, 0.1) == cosine(1.0, 0.1)  # no restart behind the end


def test_warm_up_is_a_straight_line() -> None:
    schedule = make(name="constant", warmup_steps=4, warmup_lr=0.2 * BASE)
    assert [schedule.factor(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_milestones_count_from_their_own_step() -> None:
    schedule = make(name="milestones", steps_per_epoch=2, milestones=[1, 2], gamma=0.1, warmup_epochs=0)
    assert [schedule.factor(step) for step in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_one_cycle_ends_and_peak() -> None:
    values = [one_cycle(progress, 0.25, 0.04, 0.001) for progress in (0.0, 0.125, 0.25, 0.625, 1.0)]
    assert values == pytest.approx([0.04, 0.52, 1.0, 0.5005, 0.001])


# -- whole runs ------------------------------------------------------------------------------------------------------


def test_cosine_as_torch() -> None:
    expected = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, 100, T_max=100, eta_min=0.02)
    assert rates(make(min_lr=0.02)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("warmup", [{"warmup_steps": 15}, {"warmup_epochs": 1.5}], ids=str)
def test_cosine_with_warm_up_as_timm(warmup: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    timm = CosineLRScheduler(
        optimizer, t_initial=85, lr_min=0.02, warmup_t=15, warmup_lr_init=0.01, warmup_prefix=True, t_in_epochs=False
    )
    expected = []
    for step in range(100):
        timm.step_update(step)
        expected.append(optimizer.param_groups[0]["lr"])
    assert rates(make(min_lr=0.02, warmup_lr=0.01, **warmup)) == pytest.approx(expected, rel=1e-9)


def test_milestones_as_torch() -> None:
    expected = torch_rates(torch.optim.lr_scheduler.MultiStepLR, 100, milestones=[30, 65, 90], gamma=0.2)
    assert rates(make(name="milestones", milestones=[3, 6.5, 9], gamma=0.2)) == pytest.approx(expected, rel=1e-9)


def test_one_cycle_as_torch() -> None:
    # torch's rise ends at step pct_start * total - 1, ours at the same part of the way to the last step.
    rise, total = 0.3, 101
    expected = torch_rates(
        torch.optim.lr_scheduler.OneCycleLR,
        total,
        max_lr=BASE,
        total_steps=total,
        pct_start=(rise * (total - 1) + 1) / total,
        div_factor=25,
        final_div_factor=1e4,
        cycle_momentum=False,
    )
    ours = rates(make(total_steps=total, name="one_cycle", one_cycle_rise=rise))
    assert ours == pytest.approx(expected, rel=1e-9)
    assert max(ours) == ours[30] == pytest.approx(BASE)


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_constant_after_warm_up(name: str) -> None:
    assert rates(make(total_steps=6, name=name, warmup_steps=2, warmup_lr=0.1)) == pytest.approx([0.1, 0.3] + 4 * [0.5])


@pytest.mark.parametrize("name", ["cosine", "milestones", "constant", "plateau"])
def test_warm_up_starts_at_its_rate_and_ends_at_the_base_rate(name: str) -> None:
    passed: dict[str, Any] = {"milestones": [9.0]} if name == "milestones" else {}
    schedule = make(name=name, warmup_epochs=2, warmup_lr=1e-6, **passed)
    assert BASE * schedule.factor(0) == pytest.approx(1e-6)
    assert BASE * schedule.factor(19) == pytest.approx(1e-6 + (BASE - 1e-6) * 19 / 20)
    assert schedule.factor(20) == pytest.approx(1.0)


@pytest.mark.parametrize("total_steps", [2, 3, 7, 1000])
@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_cosine_reaches_min_lr_behind_the_last_step_so_that_none_is_wasted(total_steps: int, warmup_steps: int) -> None:
    schedule = make(total_steps=total_steps, min_lr=0.03, warmup_steps=warmup_steps)
    assert BASE * schedule.factor(total_steps) == pytest.approx(0.03, rel=1e-9)
    assert BASE * schedule.factor(total_steps - 1) > 0.03
    assert make(total_steps=total_steps, warmup_steps=warmup_steps).factor(total_steps - 1) > 0


def test_shortest_runs() -> None:
    assert make(total_steps=1).factor(0) == 1.0
    assert make(total_steps=1, name="one_cycle").factor(0) == pytest.approx(0.04)
    assert make(total_steps=1, warmup_steps=5, warmup_lr=0.1).factor(0) == pytest.approx(0.2)


def test_warm_up_longer_than_the_run_is_only_warm_up() -> None:
    values = rates(make(total_steps=5, warmup_steps=10, warmup_lr=0.0))
    assert values == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize(
    "config, peak",
    [
        ({"warmup_steps": 13, "warmup_lr": 0.001, "min_lr": 0.01}, 13),
        ({"name": "milestones", "milestones": [2, 5], "warmup_steps": 7}, 7),
        ({"name": "one_cycle", "one_cycle_rise": 0.4}, 40),
        ({"name": "constant", "warmup_epochs": 0.5}, 5),
    ],
    ids=lambda value: value.get("name", "cosine") if isinstance(value, dict) else "",
)
def test_rates_rise_to_the_peak_and_never_again(config: dict[str, Any], peak: int) -> None:
    values = rates(make(total_steps=101, **config))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert max(values) == pytest.approx(BASE)
    assert all(0 < value <= BASE * (1 + 1e-12) for value in values)


def test_epochs_of_fractions_are_rounded_to_steps() -> None:
    schedule = make(steps_per_epoch=7, name="milestones", milestones=[0.5, 1.5], warmup_epochs=0.3)
    assert schedule.milestone_steps == (4, 10)  # 3.5 and 10.5, to even as Python rounds
    assert schedule.warmup_steps == 2


def test_the_factor_depends_on_the_step_alone() -> None:
    schedule = make(warmup_steps=10, min_lr=0.01)
    forwards = rates(schedule)
    assert rates(schedule, range(99, 0, -1)) == forwards[:0:-1]


def test_a_rate_is_the_base_rate_times_factor_and_the_plateaus_scale_counts_under_it_alone() -> None:
    plateau = Schedule(section(ScheduleConfig, name="plateau"), 0.2, 10, 100)
    constant = Schedule(section(ScheduleConfig, name="constant"), 0.2, 10, 100)
    assert plateau.rate(5, 0.5) == 0.1 and constant.rate(5, 0.5) == 0.2


def test_what_is_due_after_which_step() -> None:
    """12 steps of 5 an epoch."""
    intervals = Intervals(
        EvaluationConfig(every_epochs=2), CheckpointConfig(every_steps=7), LoggingConfig(every_steps=4), 5, 12
    )
    steps = range(1, 13)
    assert [step for step in steps if intervals.evaluation_due(step)] == [10, 12]
    assert [step for step in steps if intervals.record_due(step)] == [4, 5, 8, 10, 12]
    assert [step for step in steps if intervals.save_due(step)] == [7, 12]
    rare = Intervals(EvaluationConfig(every_steps=3), CheckpointConfig(), LoggingConfig(), 5, 12)
    assert [step for step in steps if rare.evaluation_due(step)] == [3, 6, 9, 12]
    assert not any(map(rare.save_due, steps)) and rare.checkpoint.every_minutes is None
