"""One writer a folder, and who may follow it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.run_folder.paths import RunDir
from engine.run_folder.writer_lock import RunLock

HOLD = """
import sys
from pathlib import Path
from engine.run_folder.paths import RunDir
from engine.run_folder.writer_lock import RunLock
lock = RunLock(RunDir(Path(sys.argv[1])), patience=float(sys.argv[2]), poll=0.02)
print("held", flush=True)
sys.stdin.readline()
lock.release()
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir.claim(tmp_path)


@pytest.fixture
def holder(run_dir: RunDir) -> Iterator[subprocess.Popen]:
    process = start(run_dir)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


def start(run_dir: RunDir, patience: float = 0.0) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, os.fspath(run_dir.path), str(patience)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def write_lock(run_dir: RunDir, **changes: Any) -> None:
    writer = {"host": "elsewhere", "pid": 1, "born": "x", "job": "", "since": time.time()}
    run_dir.lock.write_text(json.dumps({**writer, **changes}))


def owner(run_dir: RunDir) -> tuple[str, int]:
    lock = json.loads(run_dir.lock.read_text())
    return lock["host"], lock["pid"]


OURSELVES = (socket.gethostname(), os.getpid())


def test_a_second_start_is_refused_with_host_and_pid(run_dir: RunDir, holder: subprocess.Popen) -> None:
    with pytest.raises(UserError) as caught:
        RunLock(run_dir, patience=0.0)
    assert f"process {holder.pid} on host {socket.gethostname()} has been writing here since" in str(caught.value)
    assert os.fspath(run_dir.path) in str(caught.value)
    assert owner(run_dir) == (socket.gethostname(), holder.pid)


def test_the_folder_is_free_after_release(run_dir: RunDir) -> None:
    for _ in range(2):
        lock = RunLock(run_dir)
        assert owner(run_dir) == OURSELVES
        lock.release()
        assert list(run_dir.path.iterdir()) == []


def test_a_start_waits_for_the_first_to_end(run_dir: RunDir, holder: subprocess.Popen) -> None:
    timer = threading.Timer(0.3, lambda: holder.communicate(b"\n"))
    timer.start()
    lock = RunLock(run_dir, patience=60.0, poll=0.02)
    assert owner(run_dir) == OURSELVES
    timer.join()
    lock.release()


@pytest.mark.parametrize("collected", [True, False], ids=["collected", "zombie"])
def test_a_killed_writer_is_succeeded(run_dir: RunDir, holder: subprocess.Popen, collected: bool) -> None:
    holder.send_signal(signal.SIGKILL)
    if collected:
        holder.wait()
    lock = RunLock(run_dir, patience=60.0, poll=0.02)
    assert owner(run_dir) == OURSELVES
    lock.release()


def test_a_pid_used_again_is_not_the_writer(run_dir: RunDir, holder: subprocess.Popen) -> None:
    writer = json.loads(run_dir.lock.read_text())
    run_dir.lock.write_text(json.dumps({**writer, "born": writer["born"] + "0"}))
    RunLock(run_dir, patience=0.0).release()


def test_of_many_successors_one_gets_in(run_dir: RunDir) -> None:
    write_lock(run_dir, host=socket.gethostname(), pid=2**22 + 1)
    processes = [start(run_dir) for _ in range(8)]
    answers = []
    for process in processes:
        assert process.stdout is not None
        answers.append(process.stdout.readline())
    assert answers.count(b"held\n") == 1
    refused = [p for p, answer in zip(processes, answers, strict=True) if not answer]
    assert all(b"has been writing here" in process.communicate()[1] for process in refused)
    processes[answers.index(b"held\n")].communicate(b"\n")
    assert list(run_dir.path.iterdir()) == []


def test_a_silent_writer_on_another_host_is_succeeded(run_dir: RunDir) -> None:
    write_lock(run_dir, since=time.time() - 200)
    RunLock(run_dir, poll=0.02).release()
    write_lock(run_dir, since=time.time() - 5000)
    run_dir.status.write_text(json.dumps({"state": "running", "updated": time.time() - 181}))
    RunLock(run_dir, poll=0.02).release()


def test_a_living_writer_on_another_host_is_known_by_its_status(run_dir: RunDir) -> None:
    write_lock(run_dir, since=time.time() - 5000)
    run_dir.status.write_text(json.dumps({"state": "running", "updated": time.time() - 20}))

    def beat() -> None:
        run_dir.status.write_text(json.dumps({"state": "running", "updated": time.time()}))

    timer = threading.Timer(0.3, beat)
    timer.start()
    with pytest.raises(UserError, match="process 1 on host elsewhere"):
        RunLock(run_dir, poll=0.02)
    timer.join()
    assert owner(run_dir) == ("elsewhere", 1)


def test_a_requeued_job_follows_itself_at_once(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "812")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    write_lock(run_dir, job="812.1")
    RunLock(run_dir, patience=0.0).release()


def test_a_lock_that_was_never_written_is_judged_by_its_age(run_dir: RunDir) -> None:
    run_dir.lock.touch()
    os.utime(run_dir.lock, (0, time.time() - 200))
    lock = RunLock(run_dir, poll=0.02)
    assert owner(run_dir) == OURSELVES
    lock.release()


def test_a_successor_that_died_while_replacing_does_not_block(run_dir: RunDir) -> None:
    write_lock(run_dir, host=socket.gethostname(), pid=2**22 + 1)
    guard = run_dir.lock.with_name(run_dir.lock.name + ".next")
    guard.touch()
    os.utime(guard, (0, time.time() - 100))
    RunLock(run_dir, patience=60.0, poll=0.02).release()
    assert list(run_dir.path.iterdir()) == []


def test_release_leaves_a_successors_lock(run_dir: RunDir) -> None:
    lock = RunLock(run_dir)
    write_lock(run_dir)
    lock.release()
    assert owner(run_dir) == ("elsewhere", 1)
