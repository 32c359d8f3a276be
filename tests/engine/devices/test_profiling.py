"""Profiles of a few steps: a trace that holds them, a table, and no influence on the run."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path

import pytest
import torch
import yaml

from engine.commands.arguments import TrainArguments
from engine.commands.train import run_training
from engine.config.training import ProfileConfig
from engine.devices.profiling import TABLE, TRACE, StepProfiler
from engine.errors import EXIT_INTERRUPTED
from engine.process.signals import StopRequest
from tests.engine.faulty import SPEC


def work(profiler: StepProfiler, start: int, end: int) -> None:
    """Steps of a run that begins with ``start`` of them done."""
    profiler.reached(start)
    for step in range(start + 1, end + 1):
        torch.ones(20, 20) @ torch.ones(20, 20)
        profiler.reached(step)


def profiled(folder: Path) -> list[str]:
    events = json.loads(gzip.decompress((folder / TRACE).read_bytes()))["traceEvents"]
    return sorted({event["name"] for event in events if event.get("name", "").startswith("ProfilerStep")})


def test_a_trace_and_a_table_of_the_wanted_steps(tmp_path: Path) -> None:
    profiler = StepProfiler(ProfileConfig(steps=[2, 4]), tmp_path / "results")
    work(profiler, 0, 3)
    assert not (tmp_path / "results").exists()
    work(profiler, 3, 6)
    profiler.close()
    assert profiled(tmp_path / "results") == [f"ProfilerStep#{step}" for step in (2, 3, 4)]
    table = (tmp_path / "results" / TABLE).read_text()
    assert table.startswith("Operators of steps 2 to 4") and "aten::mm" in table
    assert {path.name for path in (tmp_path / "results").iterdir()} == {TRACE, TABLE}, "nothing lies beside"
    assert TRACE.endswith(".pt.trace.json.gz"), "TensorBoard's plugin looks for this end"


def test_a_run_that_goes_on_behind_these_steps_profiles_nothing(tmp_path: Path) -> None:
    for config in (ProfileConfig(steps=[2, 4]), None):
        profiler = StepProfiler(config, tmp_path)
        work(profiler, 4, 6)
        profiler.close()
    assert not list(tmp_path.iterdir())


def test_a_run_that_ends_among_them_writes_what_it_has(tmp_path: Path) -> None:
    profiler = StepProfiler(ProfileConfig(steps=[2, 4]), tmp_path)
    work(profiler, 2, 3)
    profiler.close()
    assert "ProfilerStep#3" in profiled(tmp_path)
    assert (tmp_path / TABLE).read_text().startswith("Operators of steps 3 to 3")


def test_steps_behind_the_end_are_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    profiler = StepProfiler(ProfileConfig(steps=[2, 9]), tmp_path)
    profiler.begin(0, 3)
    work(profiler, 0, 3)
    torch.ones(20, 20) @ torch.ones(20, 20)  # an evaluation
    profiler.close()
    assert profiled(tmp_path) == ["ProfilerStep#2", "ProfilerStep#3"]
    assert (tmp_path / TABLE).read_text().startswith("Operators of steps 2 to 3")
    assert "steps 2 to 9 reach behind the run's end, step 3" in caplog.text


@pytest.mark.parametrize("begin, total", [(5, 10), (0, 1)])
def test_steps_that_never_come_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, begin: int, total: int
) -> None:
    profiler = StepProfiler(ProfileConfig(steps=[2, 4]), tmp_path)
    profiler.begin(begin, total)
    work(profiler, begin, total)
    profiler.close()
    assert "training.profile: steps 2 to 4" in caplog.text and not list(tmp_path.iterdir())


@pytest.mark.parametrize("stopped", [False, True])
def test_a_whole_run_is_profiled_from_its_first_step_to_its_end(tmp_path: Path, stopped: bool) -> None:
    tree = {
        "experiment": {"root": str(tmp_path)},
        "training": {"steps": 8, "global_batch_size": 6, "precision": "fp32", "profile": {"steps": [1, 99]}},
        "logging": {"tensorboard": False},
        "distributed": {"device": "cpu"},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(tree))
    stop = StopRequest()
    stop.signal = signal.SIGTERM if stopped else None
    code = run_training(SPEC, TrainArguments(tmp_path / "toy.yaml", None, False, ()), stop)
    assert code == (EXIT_INTERRUPTED if stopped else 0)
    steps = profiled(tmp_path / "experiment_0001" / "results")
    assert steps[0] == "ProfilerStep#1" and (len(steps) < 8 if stopped else len(steps) == 8)


def test_a_disk_that_cannot_be_written_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "results").write_text("a file where the folder should be")
    profiler = StepProfiler(ProfileConfig(steps=[1, 1]), tmp_path / "results")
    work(profiler, 0, 2)
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("steps", [[4, 2], [1], [0, 2], [1, 2, 3]])
def test_impossible_steps_are_refused(steps: list[int]) -> None:
    with pytest.raises(ValueError, match="steps"):
        ProfileConfig(steps=steps)
