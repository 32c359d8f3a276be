"""Data that lie elsewhere by now."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.run import RunConfig
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.task.moved_data import check_same_data, found_again, hint_of_moves, is_move


def config(weights: Path | str, seed: int = 0) -> RunConfig:
    found = RunConfig.model_validate({"experiment": {"seed": seed}})
    return found.model_copy(update={"finetune": FinetuneConfig.model_validate({"weights": weights})})


KEY = "finetune.weights"


def test_a_move_is_from_one_place_to_another() -> None:
    some = config("timm")
    assert is_move(some, KEY, "/old/a.pt", "/new/a.pt")
    assert not is_move(some, KEY, "timm", "/new/a.pt") and not is_move(some, KEY, None, "/new/a.pt")
    assert not is_move(some, "experiment.name", "/old", "/new")


def test_what_is_gone_is_sought_where_it_is_said_to_be_now(tmp_path: Path) -> None:
    here = tmp_path / "$job"
    here.mkdir()
    gone, there = config(tmp_path / "gone", seed=1), config(here, seed=2)
    assert found_again(gone, there) == config(here, seed=1)
    assert found_again(there, gone) is there, "what is where it was stays there"


def test_other_data_are_refused_by_what_differs(tmp_path: Path) -> None:
    before, now = config("/old/a.pt").model_dump(mode="json"), config("/new/a.pt")
    known = {"images": {"train": 3, "val": 2}, "classes": ["a", "b"]}
    check_same_data(before, now, known, known, "it")
    check_same_data(before, now, {"images": None}, known, "it")  # of an older version, which did not say
    with pytest.raises(
        UserError, match=r"it: what lies at finetune\.weights=/new/a\.pt is not .*: images\.val: 2 -> 1; "
    ):
        check_same_data(before, now, known, {**known, "images": {"train": 3, "val": 1}}, "it")
    check_same_data(before, config("/old/a.pt"), known, {}, "it")  # which is warned of


def test_a_message_about_what_is_gone_says_how_to_name_its_place(tmp_path: Path) -> None:
    def fails(weights: Path) -> None:
        with hint_of_moves(config(weights)):
            raise UserError("no file")

    with pytest.raises(UserError, match=r"^no file\nif .* add to this command: finetune\.weights=/THE/NEW/PLACE$"):
        fails(tmp_path / "gone")
    with pytest.raises(UserError, match=r"^no file$"):
        fails(tmp_path)
