"""``python -m tools.search``: what it refuses, what it leaves behind, and a whole search that is killed twice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from engine.run_folder.paths import RunDir
from engine.run_folder.status import Status
from engine.run_folder.writer_lock import Writer
from tests.classification.small import write_config
from tests.environment import ROOT, clean_environment
from tests.tools.search.test_loop import begin
from tests.tools.search.world import World
from tools.search import report
from tools.search.__main__ import main
from tools.search.runs import Runs
from tools.submit.folders import read_note
from tools.submit.resources import Resources

RANGES = """\
parameters:
  optimizer.lr: {log: [1e-5, 3e-2]}
  training.global_batch_size: {choice: [16, 32, 64]}
  optimizer.weight_decay: {uniform: [0.0, 0.2]}
sampler: {name: TPESampler, seed: 1, n_startup_trials: 5}
pruner: {name: MedianPruner, n_startup_trials: 3}
"""
COUNT = 12
LOCAL = ("--cluster", "local", "--gpus-per-node", "0")


def arguments(folder: Path) -> list[str]:
    """The command for a search below ``folder``, whose trials are 4 evaluations in 40 steps."""
    folder.mkdir(exist_ok=True)
    space, config = folder / "space.yaml", write_config(
        folder,
        training={"steps": 40, "global_batch_size": 16},
        evaluation={"every_steps": 10, "batch_size": 180},
    )  # fmt: skip
    space.write_text(RANGES)
    return ["--task", "classification", "--config", str(config), "--space", str(space)]


# -- what is refused, and what is shown --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--trials", "0"], "--trials: must be 1 or more, not 0"),
        (["--status"], "--status: there is no search space below"),
        (["--cluster", "local", "--partition", "gpu"], "--partition: --cluster local takes"),
        (["optimizer.lr=1e-3"], "optimizer.lr: searched, and given a single value too"),
        (["--name", "../x"], "--name: '../x' is no name of a folder"),
        (["evaluation.metric=AP"], "evaluation.metric: 'AP' is not measured"),
    ],
)
def test_what_is_wrong_is_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main([*arguments(tmp_path), *more]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("experiments/experiment_*"))


def test_a_search_with_other_settings_is_another_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = arguments(tmp_path)
    place = tmp_path / "experiments" / ".search" / "space"
    place.mkdir(parents=True)
    (place / "search.json").write_text(json.dumps({"task": "classification", "config": {}, "space": {}}))
    assert main([*own, *LOCAL]) == 2
    error = capsys.readouterr().err
    assert "was begun with other settings: " in error and "--name NAME begins another search" in error


def test_two_processes_do_not_make_the_same_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = arguments(tmp_path)
    folder = RunDir(tmp_path / "experiments" / ".search" / "space")
    folder.path.mkdir(parents=True)
    other = {**asdict(Writer.this_process()), "host": "elsewhere", "since": 0.0}
    folder.lock.write_text(json.dumps(other))
    status = Status(folder.status, interval=0.1)  # it lives, and began long ago
    try:
        assert main([*own, *LOCAL]) == 2
    finally:
        status.close("failed")
    assert "on host elsewhere has been writing here since" in capsys.readouterr().err
    assert not (folder.path / "journal.log").exists()


def test_a_search_can_be_looked_at_where_nothing_can_be_written_and_no_data_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, place = arguments(tmp_path), tmp_path / "experiments" / ".search" / "my search"
    place.mkdir(parents=True)
    begin(place, World(tmp_path / "experiments")).run(3, 1, 0)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("engine.task.quick_check.check_writable", lambda folder: 1 / 0)
    monkeypatch.setattr("engine.datasets.preflight.look_for_data", lambda data: 1 / 0)
    assert main([*own, "--status", "--name", "my search"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1 + 3 + 3 and out[-1] == "search: not begun; without --status the same command goes on with it"
    assert "optimizer.weight_decay" in out[0] and sorted(tmp_path.rglob("*")) == before


def test_the_best_trials_configuration_and_plots_are_written_and_the_table_tells_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LEAST", 2)
    world = World(tmp_path / "runs")
    search = begin(tmp_path, world)
    search.run(COUNT, 1, 0)
    best = search.trials.best()
    assert best is not None
    for trial in search.trials.all():
        RunDir(world.root / trial.user_attrs["experiment"]).config.write_text(f"trial: {trial.number}\n")
    files = report.write_results(search.trials, tmp_path, world.root, "top1")
    assert [file.name for file in files] == ["best.yaml", "history.png", "importance.png"]
    assert yaml.safe_load((tmp_path / "best.yaml").read_text()) == {"trial": best.number}
    shutil.rmtree(world.root / best.user_attrs["experiment"])
    assert [file.name for file in report.write_results(search.trials, tmp_path, world.root, "top1")] == [
        "history.png", "importance.png",
    ]  # fmt: skip
    table = report.table(search.trials, world.root, "top1")
    assert f"best: trial {best.number}, top1 {best.value:.4f}: optimizer.lr=" in table
    assert re.search(r"\d+ complete, \d+ pruned|\d+ pruned, \d+ complete", table)
    assert len(table.splitlines()) == COUNT + 3


def test_nothing_is_written_of_a_search_that_has_nothing(tmp_path: Path) -> None:
    search = begin(tmp_path, World(tmp_path / "runs"))
    assert report.write_results(search.trials, tmp_path, tmp_path, "top1") == []
    assert report.table(search.trials, tmp_path, "top1").endswith("no trials yet")


def test_a_folder_that_was_claimed_before_a_kill_is_taken_and_no_other(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    runs = Runs("classification", config, (), "lr", tmp_path / "experiments", "local", Resources(gpus_per_node=0))
    first, other = runs.claim(1, ["optimizer.lr=0.001"]), runs.claim(11, ["optimizer.lr=0.01"])
    assert first != other and runs.claim(1, ["optimizer.lr=0.001"]) == first
    settings = yaml.safe_load(first.config.read_text())
    assert settings["experiment"]["tags"] == ["search lr", "trial 1", "optimizer.lr=0.001"]
    assert settings["experiment"]["name"] == "lr trial 1" and settings["optimizer"]["lr"] == 0.001
    first.status.write_text('{"state": "running"}')
    assert runs.claim(1, ["optimizer.lr=0.001"]) not in (first, other)


# -- whole searches ----------------------------------------------------------------------------------------------------


def start(own: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tools.search", *own, *LOCAL, "--trials", str(COUNT)]
    return subprocess.Popen(
        command, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def outcome(folder: Path) -> list[tuple[object, ...]]:
    file = folder / "experiments" / ".search" / "space" / "journal.log"
    study = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(file))))
    return [(t.state, t.value, t.params, t.intermediate_values) for t in study.trials]


def kill_at(process: subprocess.Popen[str], line: str, queued: RunDir | None = None) -> None:
    """Kills a search when it says ``line``; with ``queued``, once that experiment has a job, and the job as well."""
    assert process.stdout is not None
    for said in process.stdout:
        if said.startswith(line):
            break
    deadline = time.monotonic() + 300
    while queued is not None and read_note(queued) is None:
        assert time.monotonic() < deadline, f"{queued.path} was not queued"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if queued is not None and (note := read_note(queued)) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(note.job), signal.SIGKILL)  # its ranks end with it


@pytest.mark.full
def test_twelve_trials_on_the_digits_killed_twice_end_as_those_of_a_search_that_was_not(tmp_path: Path) -> None:
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    done = start(arguments(reference))
    said, _ = done.communicate(timeout=3000)
    assert done.returncode == 0, said
    own = arguments(killed)
    kill_at(start(own), "trial 3: experiment")  # its job goes on
    kill_at(start(own), "trial 6: experiment", RunDir(killed / "experiments" / "experiment_0007"))
    last = start(own)
    said, _ = last.communicate(timeout=3000)
    assert last.returncode == 0 and "goes on after 7 trials" in said, said
    found = outcome(reference)
    assert outcome(killed) == found and len(found) == COUNT
    assert [state for state, *_ in found].count(TrialState.PRUNED) >= 1
    for folder in (reference, killed):
        assert len(list((folder / "experiments").glob("experiment_*"))) == COUNT
        place = folder / "experiments" / ".search" / "space"
        assert (place / "history.png").is_file() and (place / "best.yaml").is_file()
    assert main([*own, "--status"]) == 0
