"""What a launch script learns when a process ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.run_folder.exit_status import add_wait_status, describe_wait_status
from engine.run_folder.failure import Failure, read_failure, write_failure


@pytest.mark.parametrize(
    "status, expected",
    [
        (-9, "SIGKILL: usually out of memory"),
        (137, "SIGKILL: usually out of memory"),
        (-15, "SIGTERM: asked to end"),
        (139, "SIGSEGV: a crash in compiled code"),
        (-7, "SIGBUS: usually no room left in /dev/shm"),
        (134, "SIGABRT: compiled code gave up"),
        (-4, "SIGILL: "),
        (-8, "SIGFPE: "),
        (130, "SIGINT: Ctrl-C"),
        (129, "SIGHUP: "),
        (-13, "SIGPIPE"),
        (0, "exit code 0: finished"),
        (1, "exit code 1: failed; see FAILED.json"),
        (2, "exit code 2: the configuration, data or arguments are wrong"),
        (75, "exit code 75: interrupted after saving"),
        (3, "exit code 3"),
        (255, "exit code 255"),
    ],
)
def test_a_status_is_said_in_words(status: int, expected: str) -> None:
    assert describe_wait_status(status).startswith(expected)


def test_a_real_status_is_understood() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert describe_wait_status(ended.returncode).startswith("SIGKILL: ")


def test_it_is_added_to_what_a_survivor_wrote(tmp_path: Path) -> None:
    path, failure = tmp_path / "FAILED.json", Failure(1, "n1", 12, "rank 1 on n1 vanished at step 12")
    write_failure(path, failure)
    add_wait_status(path, -9, since=failure.time - 1)
    assert read_failure(path) == failure
    assert json.loads(path.read_text())["wait_status"].startswith("SIGKILL: ")


def test_without_one_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "FAILED.json"
    (tmp_path / "status.json").write_text(json.dumps({"state": "running", "step": 40, "updated": time.time()}))
    add_wait_status(path, 137)
    failure = read_failure(path)
    assert failure is not None
    assert failure.reason.startswith("a process ended, last heard of at step 40: SIGKILL: usually out of memory")
    assert json.loads(path.read_text())["wait_status"].startswith("SIGKILL: ")


def test_an_older_starts_file_is_kept_as_it_is(tmp_path: Path) -> None:
    path, failure = tmp_path / "FAILED.json", Failure(1, "n1", 12, "older")
    write_failure(path, failure)
    before = path.read_text()
    add_wait_status(path, 139, since=failure.time + 1)
    assert (tmp_path / "FAILED_1.json").read_text() == before
    written = read_failure(path)
    assert written is not None and written.reason.startswith("a process ended, last heard of at step 0: SIGSEGV: ")
