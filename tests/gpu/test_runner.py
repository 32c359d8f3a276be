"""Stages that fail, crash or hang keep none of the others from running, and are shown and written as what they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment import ROOT, clean_environment
from tests.gpu import __main__ as command
from tests.gpu.runner import Stage, run_stages, stage_environment, table
from tests.gpu.stages import STAGES

FAKES = tuple(
    Stage(name, f"tests.gpu.staged:{name}", 4 if name == "hangs" else 120, alone=name == "good")
    for name in ("hangs", "raises", "crashes", "wrong", "good")
)
STOPPABLE = """
import sys
from engine.process.signals import StopRequest
from tests.gpu import __main__ as command
from tests.gpu.runner import Stage
command.STAGES = [Stage("good", "tests.gpu.staged:good", 60), Stage("hangs", "tests.gpu.staged:hangs", 600),
                  Stage("late", "tests.gpu.staged:good", 60, alone=True)]
sys.exit(command.main(sys.argv[1:], StopRequest().install()))
"""
OUTCOMES = {"hangs": "timed out", "raises": "failed", "crashes": "failed", "wrong": "failed", "good": "passed"}


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while is_running(pid):
        assert time.monotonic() < deadline, "what a stage started outlives it"
        time.sleep(0.05)


@pytest.fixture
def stoppable(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command while it runs a stage that hangs, and the number of a process that this stage has started."""
    arguments = ["--device", "cpu", "--jobs", "1", "--output", str(tmp_path)]
    command_line = [sys.executable, "-c", STOPPABLE, *arguments]
    findings, child = tmp_path / "hangs.jsonl", 0
    with subprocess.Popen(
        command_line, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (findings.exists() and findings.read_text().endswith("\n")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        child = json.loads(findings.read_text())["value"]
        yield process, child
        process.kill()
    if is_running(child):
        os.killpg(os.getpgid(child), signal.SIGKILL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_who_is_told_to_stop_kills_its_stages_and_shows_what_is_known(
    stoppable: tuple[subprocess.Popen[str], int], number: signal.Signals, code: int
) -> None:
    process, child = stoppable
    process.send_signal(number)
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == code, shown
    until_gone(child)
    for words in ("good   passed", "hangs  not run", f"stopped by {number.name}", "late   not run", "1 of 3 stages"):
        assert words in shown


def test_stages_end_with_who_runs_them(stoppable: tuple[subprocess.Popen[str], int]) -> None:
    process, child = stoppable
    process.kill()
    until_gone(child)


def test_no_stage_stops_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "STAGES", FAKES)
    file = tmp_path / "gpu.json"
    assert command.main(["--device", "cpu", "--jobs", "4", "--json", str(file), "--output", str(tmp_path / "out")]) == 1
    written = json.loads(file.read_text())
    stages = {stage["stage"]: stage for stage in written["stages"]}
    assert written["device"] == "cpu"
    assert {name: stage["outcome"] for name, stage in stages.items()} == OUTCOMES
    assert list(stages)[-1] == "good", "what measures runs alone, after the others"
    assert stages["good"]["figures"] == {"device": "cpu", "card": "none", "images/s": 1234.5}
    assert stages["wrong"]["faults"] == ["two is not three", "inner: ValueError: a part of it"]
    assert stages["wrong"]["figures"] == {"after": 7}
    assert "words of a stage" in stages["wrong"]["output"]
    assert stages["raises"]["faults"] == ["raises: KeyError: 'the whole of it'"]
    assert stages["crashes"]["faults"] == ["ended with exit code -6"]
    assert stages["crashes"]["figures"] == {"before": 1}
    assert "time.sleep(3600)" in stages["hangs"]["output"] or "in hangs" in stages["hangs"]["output"]
    until_gone(stages["hangs"]["figures"]["child"])
    shown = capsys.readouterr().out
    for words in (
        "good     passed",
        "images/s 1234",
        "hangs    timed out",
        "- still running after 4 s",
        "1 of 5 stages",
    ):
        assert words in shown


def test_a_stage_whose_turn_comes_too_late_is_not_run(tmp_path: Path) -> None:
    results = run_stages(FAKES, "cpu", tmp_path, within=0)
    assert [result.outcome for result in results] == ["not run"] * len(FAKES)
    assert "0 of 5 stages passed" in table(results)


@pytest.mark.parametrize(
    ("device", "visible", "card"), [("cuda", None, "0"), ("cuda", "MIG-a,MIG-b", "MIG-a"), ("cpu", "0,1", "")]
)
def test_a_stage_sees_one_card_and_no_launcher(device: str, visible: str | None, card: str) -> None:
    around = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert stage_environment(device, around)["CUDA_VISIBLE_DEVICES"] == card


def test_without_a_gpu_nothing_is_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "gpu_visible", lambda: False)
    assert command.main([]) == 0
    assert "skipped" in capsys.readouterr().out


def test_a_job_that_was_given_a_gpu_which_torch_does_not_see_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "gpu_visible", lambda: False)
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": "abc"}.items():
        monkeypatch.setenv(name, value)
    assert command.main(["--json", str(tmp_path / "gpu.json")]) == 1
    assert "sees none" in capsys.readouterr().out
    assert "CUDA_VISIBLE_DEVICES wrong ('abc')" in (tmp_path / "gpu.json").read_text()


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--jobs", "0", "a whole number from 1 on is wanted"),
        ("--json", "/nowhere/gpu.json", "there is no folder /nowhere"),
        ("--json", "/tmp", "/tmp is a folder; name a file"),
        ("--json", "/proc/gpu.json", "/proc cannot be written"),
        ("--output", __file__, "a folder is needed here, and this is none"),
        ("--output", "/proc/nope", "/proc cannot be written"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_runs(
    option: str, value: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run_stages", None)
    with pytest.raises(SystemExit, match="2"):
        command.main(["--device", "cpu", option, value])
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{option}: " in error and why in error


def test_every_stage_names_a_function() -> None:
    for stage in STAGES:
        module, _, function = stage.work.partition(":")
        source = Path(*module.split(".")).with_suffix(".py")
        assert f"def {function}(findings: Findings)" in source.read_text(), stage.name
    assert len({stage.name for stage in STAGES}) == len(STAGES)
