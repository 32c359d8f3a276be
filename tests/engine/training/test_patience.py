"""Early stopping and the plateau schedule go on after a restart as if there had been none."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from engine.training.state import RunState
from tests.engine.staged import differing
from tests.engine.toy import Memory, ToyTask, toy_config, toy_model, toy_trainer

SCORES = [0.5, 0.6, 0.6, 0.6, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6]
"""Two stretches without progress, the second long enough to end the run."""


class Saves(Memory):
    """Keeps each checkpoint's content, and how many evaluations were behind it."""

    def __init__(self, done: int = 0) -> None:
        super().__init__()
        self.done = done
        self.contents: list[tuple[int, dict[str, Any]]] = []

    def save(self, state: RunState, content: dict[str, Any], best: bool) -> None:
        super().save(state, content, best)
        self.contents.append((self.done + len(self.val), copy.deepcopy(content)))


def fitted(metric: str, saved: dict[str, Any] | None = None, done: int = 0) -> Saves:
    """A run that saves after each of its steps, from its beginning or from a checkpoint behind ``done`` evaluations."""
    task, least = ToyTask(toy_model()), {"score": 1e-4, "loss": 1e3}[metric]
    config = toy_config(
        training={"epochs": 20},
        schedule={"name": "plateau", "plateau": {"factor": 0.5, "patience": 1, "min_delta": least}},
        evaluation={"metric": metric, "early_stopping": {"patience": 4, "min_delta": least}},
        checkpoint={"every_steps": 1},
    )
    trainer, recorder = toy_trainer(task, config), Saves(done)
    task.scores = SCORES[done:]
    if saved is not None:
        trainer.load_state_dict(saved)
    assert trainer.fit(recorder)
    return recorder


@pytest.mark.parametrize("metric", ["score", "loss"])
def test_a_restart_anywhere_changes_neither_rates_nor_the_end(metric: str) -> None:
    whole = fitted(metric)
    rates = [record["lr"] for record in whole.train]
    if metric == "score":
        assert [record["step"] for record in whole.val] == [3 * i for i in range(1, 10)]  # the best at 15, then four
        assert sorted(set(rates)) == pytest.approx([0.0025, 0.005, 0.01])
    else:  # which never falls by as much as is asked for
        assert [record["step"] for record in whole.val] == [3, 6, 9, 12, 15]
    for done, saved in whole.contents[:-1]:
        rest = fitted(metric, copy.deepcopy(saved), done)
        assert differing(rest.contents[-1][1], whole.contents[-1][1]) == [], saved["run"]["step"]
        assert [r["lr"] for r in rest.train] == rates[saved["run"]["step"] :]
        assert [r["step"] for r in rest.val] == [r["step"] for r in whole.val[done:]]


@pytest.mark.parametrize(("patience", "warned"), [(4, False), (5, True)])
def test_a_patience_that_cannot_run_out_is_warned_of(
    patience: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy_config(training={"epochs": 5}, evaluation={"early_stopping": {"patience": patience}})
    toy_trainer(ToyTask(toy_model()), config)
    assert (f"a patience of {patience} never runs out in 5 evaluations" in caplog.text) == warned


def test_a_metric_that_is_no_number_is_told_of_with_what_follows(caplog: pytest.LogCaptureFixture) -> None:
    task = ToyTask(toy_model())
    task.scores = [math.nan, math.nan, 0.5]
    trainer, recorder = toy_trainer(task, toy_config(training={"epochs": 3}, evaluation={"metric": "score"})), Saves()
    assert trainer.fit(recorder)
    assert caplog.text.count("score is not a number: no checkpoint is the best by it, and it never counts") == 2
    assert trainer.state.best["score"] == 0.5
