"""A process ends when its launcher dies, or it is asked to stop, before the ranks have met."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine.dist import Layout
from engine.session import run_session
from engine.settings import DistributedConfig
from engine.signals import StopRequest
from engine.start_guard import StartGuard
from tests.distributed import ROOT, clean_environment

CHILD = """
import sys, time
from engine.signals import StopRequest
from engine.start_guard import StartGuard
guard = StartGuard(StopRequest())
assert "torch" not in sys.modules
print("ready", flush=True)
if sys.argv[1] == "closed":
    guard.close()
    sys.stdin.readline()
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1], "open"], env={**os.environ, "RANK": "0"})
sys.stdin.readline()
"""


def test_the_end_of_the_launcher_is_the_end() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, cwd=ROOT, env=clean_environment(), text=True, **pipes) as parent:  # type: ignore[call-overload]
        assert parent.stdout is not None and parent.stderr is not None
        assert parent.stdout.readline() == "ready\n"
        begin = time.monotonic()
        parent.kill()
        # The child holds the other end of the pipe: it is at its end when the child is.
        assert parent.stderr.read() == f"error: the launcher (pid {parent.pid}) vanished\n"
        assert time.monotonic() - begin < 15


def test_a_process_without_a_launcher_is_left_alone() -> None:
    exits: list[int] = []
    for environment in ({}, {"SLURM_PROCID": "0"}):
        stop = StopRequest()
        stop.signal = signal.SIGTERM
        guard = StartGuard(stop, environment, exits.append, stop_seconds=0)
        guard.launcher_pid = os.getpid()  # not its parent
    time.sleep(0.7)
    assert exits == []


def test_a_closed_guard_looks_no_more() -> None:
    exits: list[int] = []
    guard = StartGuard(StopRequest(), {"RANK": "0"}, exits.append)
    guard.close()
    guard.launcher_pid = os.getpid()
    time.sleep(0.7)
    assert exits == []


def test_a_rank_that_is_to_stop_does_not_wait_for_ever_for_the_others() -> None:
    ended: queue.Queue[int] = queue.Queue()
    stop = StopRequest()
    guard = StartGuard(stop, {"RANK": "0"}, ended.put, stop_seconds=0.1)
    time.sleep(0.7)
    assert ended.empty()
    stop.signal = signal.SIGTERM
    assert ended.get(timeout=15) == 75
    guard.close()


def test_ranks_that_have_met_are_left_to_the_watchdog(tmp_path: Path) -> None:
    exits: list[int] = []
    guard = StartGuard(StopRequest(), {"RANK": "0"}, exits.append)

    def work(*_: object) -> int:
        guard.launcher_pid = -1  # it would see it gone
        time.sleep(0.7)
        return 0

    assert run_session(work, DistributedConfig(device="cpu"), Layout(), tmp_path, guard=guard) == 0
    assert exits == []
