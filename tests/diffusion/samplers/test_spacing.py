from __future__ import annotations

import pytest
import torch

from diffusion.process.schedules import Schedule
from diffusion.samplers.spacing import spaced, start
from diffusion.samplers.steps import CLEAN

SCHEDULES = [Schedule("linear", 1000), Schedule("cosine"), Schedule("cosine", 300), Schedule("flow"), Schedule("edm")]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("spacing", ["uniform", "trailing", "karras"])
def test_levels_go_from_the_schedules_end_to_the_image(schedule: Schedule, spacing: str) -> None:
    end = tuple(float(part) for part in schedule.at(torch.ones(1)))
    for steps in range(1, 26):
        levels = spaced(schedule, steps, spacing)
        assert len(levels) == steps + 1 and levels[-1] == CLEAN == (1.0, 0.0)
        if spacing != "karras":
            assert levels[0] == end, "not only near to it"
        elif end[0] * 160 > end[1]:
            assert levels[0] == pytest.approx(end)
        else:
            assert levels[0].sigma / levels[0].alpha == pytest.approx(160)
        ratios = [level.log_snr for level in levels]
        assert ratios == sorted(set(ratios)), "less noise each time"


def test_times_of_a_table() -> None:
    schedule = Schedule("linear", 1000)
    alphas = schedule.at(torch.arange(1, 1001) / 1000)[0].tolist()
    assert [level.alpha for level in spaced(schedule, 5)[:-1]] == [alphas[i] for i in (999, 799, 599, 399, 199)]
    assert [level.alpha for level in spaced(schedule, 4, "uniform")[:-1]] == [alphas[i] for i in (999, 666, 333, 0)]
    assert [level.alpha for level in spaced(schedule, 1000)[:-1]] == alphas[::-1]


def test_uniform_steps_of_edm_are_its_own() -> None:
    own, karras = (spaced(Schedule("edm"), 18, spacing) for spacing in ("uniform", "karras"))
    for one, other in zip(own, karras, strict=True):
        assert one == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize("steps", [0, -3])
def test_no_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps: {steps}"):
        spaced(Schedule("flow"), steps)


@pytest.mark.parametrize("spacing", ["uniform", "trailing"])
def test_more_steps_than_a_table_has_are_refused(spacing: str) -> None:
    with pytest.raises(ValueError, match=r"steps: 301 .* 300"):
        spaced(Schedule("cosine", 300), 301, spacing)
    assert len(spaced(Schedule("cosine", 300), 300, spacing)) == 301


def test_a_sampler_begins_with_noise_of_the_first_level() -> None:
    noise = torch.randn(2, 1, 4, 4)
    assert torch.equal(start(noise, spaced(Schedule("flow"), 3)), noise)
    torch.testing.assert_close(start(noise, spaced(Schedule("edm"), 3, "uniform")), 80 * noise)
