"""Which folder a start of a Slurm job goes on in."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.commands.arguments import TrainArguments
from engine.commands.resume import plan
from engine.config.load import dump_config, load_config
from engine.config.run import RunConfig
from engine.distributed.slurm import note_folder
from engine.run_folder.paths import RunDir
from engine.run_folder.status import Status


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file, for the first start of job 812."""
    monkeypatch.setenv("SLURM_JOB_ID", "812")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    path = tmp_path / "run.yaml"
    path.write_text(f"experiment: {{root: {tmp_path}}}\ntraining: {{steps: 10}}\n")
    return path


def arguments(config: Path, *overrides: str, resume: str | None = None, dry_run: bool = False) -> TrainArguments:
    return TrainArguments(config, resume, dry_run, overrides)


def begin(config: Path, *overrides: str) -> RunDir:
    """What a start leaves behind."""
    folder = RunDir.claim(config.parent)
    folder.config.write_text(dump_config(load_config(RunConfig, config, overrides)))
    note_folder(folder, config.parent, arguments(config, *overrides).request)
    return folder


def test_a_restarted_job_goes_on_in_its_folder(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(RunConfig, arguments(config)).folder is None
    folder, other = begin(config), begin(config, "training.steps=20")
    assert plan(RunConfig, arguments(config)).folder is None, "a job may train the same twice"
    assert plan(RunConfig, arguments(config, resume="auto")).folder == folder
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert plan(RunConfig, arguments(config)).folder == folder
    assert plan(RunConfig, arguments(config, "training.steps=20")).folder == other
    assert plan(RunConfig, arguments(config, "training.steps=30")).folder is None, "not begun by the first start"
    assert plan(RunConfig, arguments(config, dry_run=True)).folder is None


def test_another_job_or_array_task_has_its_own_folder(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(config)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "811")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert plan(RunConfig, arguments(config)).folder is None


def test_a_restarted_job_keeps_the_settings_that_it_began_with(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(config)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    config.write_text(config.read_text() + "optimizer: {lr: 0.5}\n")
    the_plan = plan(RunConfig, arguments(config))
    assert the_plan.config.optimizer.lr == 1e-3
    assert the_plan.changes == []


def test_a_restarted_job_that_has_finished_says_so(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begin(config)
    Status(folder.status).close("finished")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert plan(RunConfig, arguments(config)).finished


def test_a_folder_without_a_configuration_yet_is_used(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begin(config)
    folder.config.unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    the_plan = plan(RunConfig, arguments(config))
    assert the_plan.folder == folder
    assert the_plan.config.training.steps == 10
