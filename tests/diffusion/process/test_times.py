from __future__ import annotations

import math

import pytest
import torch

from diffusion.process.schedules import Schedule
from diffusion.process.times import Times

UNIFORM = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000


@pytest.mark.parametrize("name", ("uniform", "logit_normal", "log_normal"))
@pytest.mark.parametrize("schedule", [Schedule("cosine"), Schedule("linear", 1000), Schedule("flow"), Schedule("edm")])
def test_no_number_leads_to_a_level_without_noise(name: str, schedule: Schedule) -> None:
    numbers = torch.tensor([0.0, 1e-12, 0.5, 1 - 1e-12, 1.0])
    alpha, sigma = Times(name, mean=-1.2, std=1.2).level(numbers, schedule)
    assert (sigma > 0).all() and alpha.isfinite().all() and sigma.isfinite().all()
    assert (torch.atan2(sigma, alpha).diff() >= 0).all()


def test_uniform_times_are_every_step_alike() -> None:
    alpha, _ = Times().level(UNIFORM, Schedule("linear", 100))
    assert torch.equal(alpha.unique(return_counts=True)[1], torch.full((100,), 200))


def test_logit_normal_times_are_normal_in_log_odds() -> None:
    alpha, sigma = Times("logit_normal", 0.5, 0.8).level(UNIFORM, Schedule("flow"))
    odds = (sigma / alpha).log()
    assert float(odds.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(odds.std()) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("name", ("edm", "cosine", "flow"))
def test_log_normal_levels_are_those_of_edm_on_any_schedule(name: str) -> None:
    alpha, sigma = Times("log_normal", -1.2, 1.2).level(UNIFORM, Schedule(name, shift=2.0))
    ratio = (sigma / alpha).log()
    assert float(ratio.mean()) == pytest.approx(-1.2 + math.log(2), abs=1e-3)
    assert float(ratio.std()) == pytest.approx(1.2, abs=2e-3)
    whole = {"edm": alpha, "flow": alpha + sigma, "cosine": alpha**2 + sigma**2}[name]
    torch.testing.assert_close(whole, torch.ones_like(whole))


def test_a_spread_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"std .* 0"):
        Times("log_normal", std=0.0)
