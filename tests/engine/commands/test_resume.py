"""Which folder a start goes on in, and with which settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.commands.arguments import TrainArguments
from engine.commands.resume import allowed_changes, plan
from engine.commands.train import run_training
from engine.config.run import RunConfig
from engine.errors import UserError
from engine.process.signals import StopRequest
from engine.run_folder.paths import RunDir
from engine.training.trainer import Trainer
from tests.engine.faulty import SPEC


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tree = {
        "experiment": {"root": str(tmp_path / "experiments")},
        "training": {"global_batch_size": 6, "epochs": 2, "precision": "fp32"},
        "logging": {"tensorboard": False},
        "distributed": {"device": "cpu"},
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def start(config: Path | None, *overrides: str, resume: Path | str | None = None) -> int:
    where = None if resume is None else str(resume)
    return run_training(SPEC, TrainArguments(config, where, False, overrides), StopRequest())


def finished(config: Path) -> RunDir:
    assert start(config) == 0
    return RunDir(config.parent / "experiments" / "experiment_0001")


def content(folder: RunDir) -> dict[str, bytes]:
    """All files but the log, which says what was tried, and what is only there while somebody writes."""
    files = {path for path in folder.path.rglob("*") if path.is_file() and path.parent != folder.logs}
    return {str(path.relative_to(folder.path)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("experiment", "seed", 1, "experiment.seed: 0 -> 1"),
        ("training", "epochs", 1, "the run is at step 16 (epoch 2) already, beyond the 8 steps"),
    ],
)
def test_a_folder_whose_configuration_was_edited_is_refused_and_left_alone(
    config: Path, capsys: pytest.CaptureFixture[str], section: str, key: str, value: Any, message: str
) -> None:
    folder = finished(config)
    tree = yaml.safe_load(folder.config.read_text())
    tree[section][key] = value
    folder.config.write_text(yaml.safe_dump(tree))
    before = content(folder)
    assert start(None, "optimizer.lr=0.5", resume=folder.path) == 2
    assert message in capsys.readouterr().err
    assert content(folder) == before


def test_what_was_edited_and_may_be_changed_is_recorded(config: Path) -> None:
    folder = finished(config)
    tree = yaml.safe_load(folder.config.read_text())
    tree["training"]["epochs"], tree["optimizer"]["lr"] = 3, 0.5
    folder.config.write_text(yaml.safe_dump(tree))
    assert start(None, "training.accumulation=2", resume=folder.path) == 0
    (restart,) = json.loads(folder.environment.read_text())["restarts"]
    assert sorted(restart["changed_settings"]) == [
        "optimizer.lr: 0.001 -> 0.5",
        "training.accumulation: 'auto' -> 2",
        "training.epochs: 2 -> 3",
    ]
    assert "training.accumulation: 'auto' -> 2" in folder.readme.read_text()


def test_a_run_that_was_stopped_early_goes_on_with_more_patience(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = yaml.safe_load(config.read_text())
    tree["training"]["epochs"] = 4
    tree["evaluation"] = {"metric": "score", "mode": "max", "early_stopping": {"patience": 1}}
    config.write_text(yaml.safe_dump(tree))
    folder = finished(config)  # the score never changes, so the second evaluation, at step 16, is no better
    status = json.loads(folder.status.read_text())
    assert (status["state"], status["step"], status["stopped_early"]) == ("finished", 16, True)
    assert "state **finished** (stopped early), epoch 2 of 4" in folder.readme.read_text()
    lines = capsys.readouterr().out.splitlines()
    said = next(place for place, line in enumerate(lines) if "stopping early: 1 evaluations" in line)
    assert "epoch 2 val" in lines[said - 1]
    assert start(None, resume=folder.path) == 0
    assert "was stopped early; to go on, raise evaluation.early_stopping.patience" in capsys.readouterr().out
    before = content(folder)
    assert start(None, "training.epochs=5", resume=folder.path) == 2
    assert "set evaluation.early_stopping.patience to more than 1" in capsys.readouterr().err
    assert content(folder) == before
    assert start(None, "evaluation.early_stopping.patience=2", resume=folder.path) == 0
    assert json.loads(folder.status.read_text())["step"] == 24
    assert start(None, "evaluation.early_stopping=null", resume=folder.path) == 0
    status = json.loads(folder.status.read_text())
    assert status["step"] == 32 and "stopped_early" not in status


def test_a_shorter_run_than_it_has_become_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished(config)
    before = content(folder)
    assert start(None, "training.epochs=1", resume=folder.path) == 2
    assert "ask for more with training.epochs" in capsys.readouterr().err
    assert content(folder) == before


def test_records_that_cannot_be_read_are_refused_before_anything_is_changed(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(config)
    folder.metrics.write_text("rubbish\n" + folder.metrics.read_text())
    before = content(folder)
    assert start(None, "training.epochs=3", resume=folder.path) == 2
    assert "metrics.jsonl:1: is not a record" in capsys.readouterr().err
    assert content(folder) == before


def test_checkpoints_that_cannot_be_written_are_known_before_the_first_step(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(config)
    folder.checkpoints.rename(folder.path / "elsewhere")
    folder.checkpoints.write_text("")
    assert start(None, "training.epochs=3", resume=folder.path) == 2
    assert "a folder is needed here" in capsys.readouterr().err


def test_a_run_that_begins_anew_does_not_seem_to_be_where_it_was(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(config)
    shutil.rmtree(run.checkpoints)
    run.status.write_text(json.dumps({**json.loads(run.status.read_text()), "state": "failed"}))

    def crash(*arguments: object) -> None:
        raise RuntimeError("at the first step")

    monkeypatch.setattr(Trainer, "train_step", crash)
    assert start(None, resume=run.path) == 1
    status = json.loads(run.status.read_text())
    assert (status["state"], status["step"], status["epoch"]) == ("failed", 0, 0)


def test_auto_takes_the_unfinished_run_of_the_same_configuration(config: Path) -> None:
    folder = finished(config)
    arguments = TrainArguments(config, "auto", False, [])
    assert plan(RunConfig, arguments).folder is None
    for state in ("running", "interrupted", "failed"):
        folder.status.write_text(json.dumps({**json.loads(folder.status.read_text()), "state": state}))
        assert plan(RunConfig, arguments).folder == folder
    other = TrainArguments(config, "auto", False, ["optimizer.lr=0.5"])
    assert plan(RunConfig, other).folder is None


def test_auto_refuses_to_choose_between_two(config: Path) -> None:
    for _ in range(2):
        start(config)
    for path in (config.parent / "experiments").glob("experiment_*"):
        (path / "status.json").unlink()
    with pytest.raises(
        UserError, match=r"name one of them: --resume \S*experiment_0001 or --resume \S*experiment_0002"
    ):
        plan(RunConfig, TrainArguments(config, "auto", False, []))


def test_free_settings_are_not_worth_a_word() -> None:
    before = RunConfig().model_dump(mode="json")
    after = RunConfig.model_validate({"logging": {"every_steps": 3}, "checkpoint": {"every_steps": 5}})
    assert allowed_changes(before, after, "it") == []


def test_a_run_of_an_earlier_version_goes_on_with_what_that_did(
    config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = finished(config)
    tree = yaml.safe_load(folder.config.read_text())
    assert tree["training"].pop("clip_grad_norm", "not there") != 0.25
    folder.config.write_text(yaml.safe_dump(tree))
    monkeypatch.setattr("engine.config.load.OLDER", {"training.clip_grad_norm": 0.25})
    the_plan = plan(SPEC.schema(), TrainArguments(None, str(folder.path), False, ["training.epochs=3"]))
    assert the_plan.config.training.clip_grad_norm == 0.25 and the_plan.folder == folder
    assert "begun by an earlier version: it goes on with training.clip_grad_norm=0.25" in caplog.text
