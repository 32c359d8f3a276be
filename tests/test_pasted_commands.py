"""Commands that messages print: pasted into a shell where they are printed, they do what the message says."""

from __future__ import annotations

import ast
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from engine.checkpoints import store
from engine.commands.train import _newest
from engine.config.load import ConfigError
from engine.errors import UserError
from engine.files import command, write_json
from engine.run_folder.paths import RunDir
from engine.run_folder.readme import resume_command
from engine.task.other_tasks import explained
from tests.distributed import ROOT, Group, launch
from tests.test_outside_task import CONFIG, TASK
from tools.submit.__main__ import _report, main
from tools.submit.folders import Note
from tools.submit.submission import Submitted

PRINTED = re.compile(r"^(?:.*?: +)?((?:python -m|torchrun|srun python|tensorboard|scancel|cd) .*)$", re.MULTILINE)
"""A command at the end of a line, behind what it is for."""
ROOT_NAME = "it's my #1 \"run\" & $USER's"


def typed(line: str, cwd: Path, folder: Path) -> list[str]:
    """Returns what a shell in ``cwd`` starts for ``line``: the program's name and its arguments."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("python", "torchrun", "srun", "tensorboard", "scancel"):
        program = programs / name
        program.write_text('#!/bin/sh\nprintf \'%s\\0\' "$(basename "$0")" "$@"\n')
        program.chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "USER": "nobody"}
    done = subprocess.run(["bash", "-c", line], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout.split("\0")[:-1]


def paste(line: str, cwd: Path, folder: Path) -> str:
    """Does what ``line`` does in a shell in ``cwd``; returns what it prints."""
    program, *arguments = typed(line, cwd, folder)
    if program == "tensorboard":
        assert arguments[0] == "--logdir" and list((cwd / arguments[1]).rglob("events.out.*")), line
        return ""
    assert program == "python", line
    (ended,) = launch(1, [sys.executable, *arguments], cwd=cwd)
    assert ended.returncode == 0, f"{line}\n{ended.output}"
    return ended.output


def configured(folder: Path, **training: object) -> tuple[Path, list[str]]:
    """A folder to start from, and what is typed there; the experiments' place has a name that a shell would break."""
    here = folder / "here & there"
    here.mkdir()
    config = {**CONFIG, "training": {**CONFIG["training"], **training}}
    (folder / "my run.yaml").write_text(yaml.safe_dump(config))
    root = ROOT_NAME.replace("$", "$$")
    return here, [sys.executable, "-m", f"{TASK}.train", "--config", "../my run.yaml", f"experiment.root={root}"]


def test_what_a_run_and_its_readme_print(tmp_path: Path) -> None:
    here, start = configured(tmp_path, steps=10)
    (ended,) = launch(1, start, cwd=here)
    printed = PRINTED.findall(ended.output)
    assert ended.returncode == 0 and len(printed) == 2, ended.output
    assert "report: " in paste(printed[0], here, tmp_path)
    paste(printed[1], here, tmp_path)
    folder = RunDir(here / ROOT_NAME / "experiment_0001")
    resume, evaluate, board = PRINTED.findall(folder.readme.read_text().partition("## Go on from here")[2])
    assert "has finished" in paste(resume, tmp_path, tmp_path)
    assert evaluate.endswith(command("--experiment", str(folder.path)))
    paste(board, tmp_path, tmp_path)


def test_what_an_interrupted_run_prints(tmp_path: Path) -> None:
    here, start = configured(tmp_path, steps=100_000)
    folder = RunDir(here / ROOT_NAME / "experiment_0001")
    with Group(1, start, cwd=here) as group:
        while not (folder.checkpoints.is_dir() and any(folder.checkpoints.glob("step_*.pt"))):
            assert group.processes[0].poll() is None, group.output(0)
            time.sleep(0.002)
        group.processes[0].send_signal(signal.SIGINT)
        (ended,) = group.wait(60)
    assert ended.returncode == 75
    (resume,) = PRINTED.findall(ended.output)
    step = json.loads(folder.status.read_text())["step"]
    assert "resumed from" in paste(f"{resume} training.steps={step + 2}", here, tmp_path)


@pytest.mark.parametrize("name", ["a b", "-x", "it's", "#1", "~", "$HOME", "a\nb", "é", "*", "", "a=b", "!x", "\\"])
def test_a_shell_gives_words_and_paths_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    expected = f"./{name}" if name == "-x" else name or "."
    line = command("python", name, Path(name))
    assert typed(line, tmp_path, tmp_path) == ["python", name, expected]


def test_as_many_devices_as_before() -> None:
    assert resume_command("toy", "/a b", 1, 1) == "python -m toy.train --resume '/a b'"
    assert resume_command("toy", "/a b", 4, 1) == "torchrun --nproc-per-node=4 -m toy.train --resume '/a b'"
    assert resume_command("toy", "/a b", 8, 2) == "srun python -m toy.train --resume '/a b'"


def test_what_submit_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    submitted = []
    for number in (1, 2):
        folder = RunDir(tmp_path / ROOT_NAME / f"experiment_000{number}")
        folder.path.mkdir(parents=True)
        write_json(folder.status, {"state": "finished", "step": 1, "epoch": 1.0, "best": {}, "updated": 0})
        note = Note(TASK, "slurm", f"81_{number}", "host", str(tmp_path / "log"), "", {})
        submitted.append(Submitted(folder, note, "CPUs"))
    _report(submitted)
    status, cancel = PRINTED.findall(capsys.readouterr().out)
    program, *arguments = typed(status, tmp_path, tmp_path)
    assert program == "python" and arguments[:2] == ["-m", "tools.submit"]
    assert main(arguments[2:]) == 0
    assert "2 finished" in capsys.readouterr().out
    assert typed(cancel, tmp_path, tmp_path) == ["scancel", "81"]


def test_how_a_run_is_started_again_that_was_not_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunDir(tmp_path / ROOT_NAME / "experiment_0001")
    folder.path.mkdir(parents=True)
    write_json(folder.status, {"state": "failed", "step": 1, "epoch": 1.0, "best": {}, "updated": 0})
    folder.readme.write_text(f"```\n{resume_command(TASK, str(folder.path), 2, 1)}\n```\n")
    assert main(["--retry", ROOT_NAME]) == 0
    (line,) = PRINTED.findall(capsys.readouterr().err)
    resume = ["torchrun", "--nproc-per-node=2", "-m", f"{TASK}.train", "--resume", str(folder.path)]
    assert typed(line, tmp_path, tmp_path) == resume


def test_how_a_checkpoint_is_accepted_that_lost_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunDir(tmp_path / ROOT_NAME / "experiment_0001")
    folder.checkpoints.mkdir(parents=True)
    file = folder.checkpoints / "step_00000007.pt"
    file.write_bytes(b"weights")
    with pytest.raises(UserError) as caught:
        _newest(folder)
    found = re.search(r"cd .*(?=\))", str(caught.value))
    assert found is not None and store.verify(file) is not None
    assert not typed(found[0], tmp_path, tmp_path)
    assert store.verify(file) is None


def test_the_command_of_the_right_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConfigError("unknown key", {"detection": "run.yaml:1"})
    monkeypatch.setattr(sys, "argv", [str(ROOT / "classification/train.py"), "--config", "my run.yaml", "a.b=c #1"])
    text = explained(error)
    assert text.startswith("run.yaml:1: detection: this task has no such section: use python -m detection.train")
    words = ["python", "-m", "detection.train", "--config", "my run.yaml", "a.b=c #1"]
    assert typed(text.partition("use ")[2], tmp_path, tmp_path) == words
    monkeypatch.setattr(sys, "argv", [str(ROOT / "tools/check/__main__.py"), "--task", "classification"])
    assert explained(error).endswith(": use --task detection")


OPENS = re.compile(r"(?:\b(?:python -m|torchrun|srun|scancel|cd)|--(?:resume|experiment|status|retry|logdir)) +$")
QUOTING = ("command", "shown", "quote", "resume_command")


@pytest.mark.parametrize("package", ["engine", "classification", "detection", "tools"])
def test_no_message_puts_unquoted_values_behind_a_command(package: str) -> None:
    """A path or name behind ``tensorboard`` or ``--resume`` goes through what quotes it for the shell."""
    wrong = []
    for file in sorted((ROOT / package).rglob("*.py")):
        for text in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            parts = text.values if isinstance(text, ast.JoinedStr) else []
            for before, value in itertools.pairwise(parts):
                opens = isinstance(before, ast.Constant) and OPENS.search(str(before.value))
                if opens and isinstance(value, ast.FormattedValue) and not _is_safe(value.value):
                    wrong.append(f"{file.relative_to(ROOT)}:{text.lineno}: {ast.unparse(text)}")
    assert not wrong


def _is_safe(value: ast.expr) -> bool:
    called = value.func if isinstance(value, ast.Call) else value
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in QUOTING if isinstance(value, ast.Call) else name == "task"
