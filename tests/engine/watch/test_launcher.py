"""A process ends when its launcher dies before the ranks have met."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from engine.watch.launcher import LauncherGuard
from tests.distributed import ROOT, clean_environment

CHILD = """
import sys, time
from engine.watch.launcher import LauncherGuard
guard = LauncherGuard()
assert "torch" not in sys.modules and not guard.gone
print("ready", flush=True)
if sys.argv[1] == "closed":
    guard.close()
    sys.stdin.readline()
time.sleep(600)
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
        guard = LauncherGuard(environment, exits.append)
        guard.pid = os.getpid()  # not its parent
        assert guard.gone
    time.sleep(0.7)
    assert exits == []


def test_a_closed_guard_looks_no_more() -> None:
    exits: list[int] = []
    guard = LauncherGuard({"RANK": "0"}, exits.append)
    guard.close()
    guard.pid = os.getpid()
    time.sleep(0.7)
    assert exits == []
