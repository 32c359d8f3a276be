"""environment.json: versions, places, code state; restarts are added."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.files import read_json
from engine.git_state import git_state
from engine.run_folder.environment import describe_rank, describe_start, record_start

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run(["git", "-C", os.fspath(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "-b", "trunk")
    (folder / "code.py").write_text("x = 1\n")
    git(folder, "add", "code.py")
    git(folder, "commit", "-m", "first")
    return folder


@needs_git
def test_git_state_tells_a_clean_clone_from_a_changed_one(clone: Path) -> None:
    clean = git_state(clone)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert (clean["branch"], clean["changed_files"], clean["diff_sha256"]) == ("trunk", [], None)
    (clone / "new.py").write_text("")
    (clone / "code.py").write_text("x = 2\n")
    changed = git_state(clone)
    assert changed is not None
    assert changed["commit"] == clean["commit"]
    assert sorted(changed["changed_files"]) == ["code.py", "new.py"]
    (clone / "code.py").write_text("x = 3\n")
    again = git_state(clone)
    assert again is not None
    assert None not in (changed["diff_sha256"], again["diff_sha256"])
    assert again["diff_sha256"] != changed["diff_sha256"]


def test_without_git_or_a_clone_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert git_state(Path(__file__).parent) is None


def test_a_start_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "812")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "task.train", "--config", "a b.yaml"])
    monkeypatch.chdir(tmp_path)
    ranks = [describe_rank(rank, torch.device("cpu")) for rank in range(2)]
    start = describe_start(ranks, code=tmp_path)
    assert start["command"] == "python -m task.train --config 'a b.yaml'"
    assert start["directory"] == os.fspath(tmp_path)
    assert start["packages"]["torch"] == torch.__version__
    assert start["hosts"] == [socket.gethostname()]
    assert [device["rank"] for device in start["devices"]] == [0, 1]
    assert "CPU" in start["devices"][0]["device_name"]
    assert start["slurm"]["job_id"] == "812"
    assert start["slurm"]["array_task_id"] == "3"
    assert "restart_count" not in start["slurm"]


def test_restarts_are_added_to_the_first_start(tmp_path: Path) -> None:
    path = tmp_path / "environment.json"
    assert read_json(path) is None
    for started in (1.0, 2.0, 3.0):
        record_start(path, {"started": started, "hosts": ["n0"]})
    assert json.loads(path.read_text()) == read_json(path)
    assert read_json(path) == {
        "started": 1.0,
        "hosts": ["n0"],
        "restarts": [{"started": 2.0, "hosts": ["n0"]}, {"started": 3.0, "hosts": ["n0"]}],
    }
