from __future__ import annotations

from typing import Any

import pytest

from diffusion.process.build import build_process
from diffusion.process.objectives import Objective
from diffusion.process.schedules import Schedule
from diffusion.process.times import Times
from engine.errors import UserError
from tests.diffusion.small import config_of


def built(size: tuple[int, int] = (32, 32), **section: Any) -> Any:
    return build_process(config_of(diffusion=section).diffusion, size)


def test_each_key_reaches_its_part() -> None:
    process = built(
        objective="edm",
        sigma_data=0.4,
        schedule={"name": "linear", "steps": 100, "zero_terminal_snr": True, "shift": 2.0},
        weighting={"name": "min_snr", "gamma": 3.0},
        times={"name": "log_normal", "mean": -1.0, "std": 1.5, "stratified": True},
    )
    assert process.schedule == Schedule("linear", 100, True, 2.0)
    assert process.objective == Objective("edm", 0.4)
    assert (process.weighting, process.gamma, process.times) == ("min_snr", 3.0, Times("log_normal", -1.0, 1.5))


def test_the_shift_follows_from_the_size_of_the_images() -> None:
    assert built((64, 64), schedule={"name": "flow", "shift": "size"}).schedule.shift == 2.0
    assert built((16, 64), schedule={"name": "edm", "shift": "size"}).schedule.shift == 1.0


def test_what_shows_only_in_the_table_is_a_users_error_too() -> None:
    with pytest.raises(UserError, match="diffusion: objective eps says nothing"):
        built(objective="eps", schedule={"name": "cosine", "steps": 100, "shift": 1e4})
