from __future__ import annotations

import math

import pytest
import torch

from diffusion.process.schedules import Schedule, size_shift

TIMES = torch.linspace(0, 1, 1001, dtype=torch.float64)
SCHEDULES = [
    *(
        Schedule(name, steps, zero)
        for name in ("linear", "cosine", "sigmoid")
        for steps in (None, 300, 1000)
        for zero in (False, True)
    ),
    Schedule("flow"),
    Schedule("flow", shift=3.0),
    Schedule("cosine", shift=0.5),
    Schedule("edm"),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_noise_grows_and_the_scale_is_that_of_the_schedule(schedule: Schedule) -> None:
    alpha, sigma = schedule.at(TIMES)
    assert alpha.dtype == sigma.dtype == torch.float64
    assert (torch.atan2(sigma, alpha).diff() >= 0).all()
    total = {"edm": alpha, "flow": alpha + sigma}.get(schedule.name, alpha**2 + sigma**2)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_end_is_exact(schedule: Schedule) -> None:
    ends = schedule.name == "flow" or schedule.zero_terminal_snr or (schedule.name, schedule.steps) == ("cosine", None)
    assert schedule.ends_in_noise == ends
    level = tuple(float(part) for part in schedule.at(torch.ones(1)))
    if ends:
        assert level == (0.0, 1.0), "cos(pi / 2) is 6e-17"
    elif schedule.name == "edm":
        assert level == pytest.approx((1.0, 80.0), rel=1e-12)
    else:
        assert 0 < level[0] < 0.01


def test_schedules_without_steps_are_what_many_steps_come_to() -> None:
    for name, tolerance in (("linear", 2e-4), ("sigmoid", 2e-4), ("cosine", 0.02)):  # cosine's table has an offset
        alpha, exact = (Schedule(name, steps).at(TIMES[1:])[0] for steps in (100_000, None))
        assert (alpha - exact).abs().max() < tolerance


def test_fewer_steps_end_alike() -> None:
    """300 steps of the betas of 1000 would leave a fifth of the image."""
    for name in ("linear", "cosine", "sigmoid"):
        assert Schedule(name, 300).at(torch.ones(1))[0] < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [7, 300, 1000])
def test_each_step_is_found_by_its_time(steps: int, dtype: torch.dtype) -> None:
    times = torch.arange(1, steps + 1, dtype=dtype) / steps
    alpha = Schedule("linear", steps).at(times)[0]
    assert len(alpha.unique()) == steps
    middle = Schedule("linear", steps).at(times - 0.5 / steps)[0]
    assert torch.equal(alpha, middle), "a step stands for the times before it"


def test_a_shift_multiplies_the_ratio() -> None:
    for name in ("cosine", "flow", "edm"):
        plain, shifted = (Schedule(name, shift=shift).at(TIMES[1:-1]) for shift in (1.0, 2.5))
        torch.testing.assert_close(shifted[1] / shifted[0], 2.5 * plain[1] / plain[0])
    moved = Schedule("flow", shift=3.0).at(TIMES)[1]
    torch.testing.assert_close(moved, 3 * TIMES / (1 + 2 * TIMES))


def test_the_shift_of_a_size() -> None:
    assert size_shift((32, 32)) == 1
    assert size_shift((64, 64)) == 2
    assert size_shift((16, 64), base=16) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "flow", "steps": 1000}, "steps .* not for flow"),
        ({"name": "edm", "zero_terminal_snr": True}, "zero_terminal_snr .* not for edm"),
        ({"steps": 1}, "steps .* 1"),
        ({"shift": 0.0}, "shift .* 0"),
        ({"shift": math.inf}, "shift .* inf"),
    ],
)
def test_impossible_schedules_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Schedule(**fields)
