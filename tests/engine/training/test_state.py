"""The numbers of a run: sums of a record, and what a checkpoint keeps of them."""

from __future__ import annotations

import io
from copy import deepcopy

import pytest
import torch

from engine.training.selection import Plateau, Progress
from engine.training.state import RunState, Window


def example() -> RunState:
    window = Window()
    window.add({"loss": 6.0, "accuracy": 3.0}, samples=4, grad_norm=2.0)
    return RunState(
        step=12,
        updates=10,
        skipped_in_row=1,
        best={"step": 8, "epoch": 1.5, "top1": 0.75},
        patience=Progress(0.75, 2),
        plateau=Plateau(Progress(0.75, 1), 0.1),
        window=window,
        stopped_early=True,
    )


def test_a_window_weighs_samples_and_steps() -> None:
    window = Window()
    assert window.means() == {}
    window.add({"loss": 6.0}, samples=3, grad_norm=1.0)
    window.add({"loss": 2.0, "extra": 5.0}, samples=1, grad_norm=4.0)
    assert window.means() == {"loss": 2.0, "extra": 1.25, "grad_norm": 2.5}


def test_skipped_steps_are_those_that_were_no_updates() -> None:
    assert RunState(step=7, updates=5).skipped == 2


def test_state_survives_a_file_of_plain_types() -> None:
    buffer = io.BytesIO()
    torch.save(example().state_dict(), buffer)
    buffer.seek(0)
    loaded = RunState.from_state(torch.load(buffer, weights_only=True))
    assert loaded == example()
    assert isinstance(loaded.plateau, Plateau) and isinstance(loaded.patience, Progress)
    assert loaded.window.means() == {"loss": 1.5, "accuracy": 0.75, "grad_norm": 2.0}


def test_state_shares_nothing_with_what_it_was_saved_to_or_loaded_from() -> None:
    state = example()
    saved = state.state_dict()
    before = deepcopy(saved)
    state.window.add({"loss": 1.0}, samples=1, grad_norm=1.0)
    state.best["top1"] = 0.9
    assert saved == before
    loaded = RunState.from_state(saved)
    loaded.window.add({"loss": 1.0}, samples=1, grad_norm=1.0)
    loaded.best["top1"] = 0.9
    assert saved == before


def test_two_states_start_apart() -> None:
    first, second = RunState(), RunState()
    first.best["top1"] = 1.0
    first.window.add({"loss": 1.0}, samples=1, grad_norm=1.0)
    assert second == RunState()


def test_missing_and_surplus_entries_are_named() -> None:
    saved = example().state_dict()
    del saved["updates"]
    saved["luck"] = 7
    with pytest.raises(KeyError, match=r"missing \['updates'\], surplus \['luck'\]"):
        RunState.from_state(saved)
