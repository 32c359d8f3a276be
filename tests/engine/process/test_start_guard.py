"""A process ends when its launcher dies, or it is asked to stop, before the ranks have met."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.commands.session import run_session
from engine.config.run import DistributedConfig
from engine.distributed.layout import Layout
from engine.process.signals import StopRequest
from engine.process.start_guard import StartGuard
from tests.distributed import ROOT, agent_store, clean_environment

CHILD = """
import sys, time
from engine.process.signals import StopRequest
from engine.process.start_guard import StartGuard
guard = StartGuard(StopRequest())
assert "torch" not in sys.modules
print("ready", flush=True)
if sys.argv[1] == "closed":
    guard.close()
    sys.stdin.readline()
time.sleep(60)
"""
WAITS_IN_CPP = """
import sys
from engine.process.signals import StopRequest
from engine.process.start_guard import StartGuard
guard = StartGuard(StopRequest().install(), stop_seconds=0.5)
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", int(sys.argv[1]), is_master=False)
print("ready", flush=True)
store.get("what rank 0 never sets")
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


def test_a_launcher_that_is_known_by_its_number_may_have_died_before_anybody_looked() -> None:
    ended: queue.Queue[int] = queue.Queue()
    guard = StartGuard(StopRequest(), {}, ended.put, launcher=2**22 + 1)
    assert ended.get(timeout=600) == 1
    guard.close()


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
    assert ended.get(timeout=600) == 75
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


def test_a_rank_that_waits_in_cpp_ends_when_it_is_asked_to() -> None:
    store = agent_store()
    command = [sys.executable, "-c", WAITS_IN_CPP, str(store.port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = clean_environment({"RANK": "1"})
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as rank:  # type: ignore[call-overload]
        assert rank.stdout is not None
        assert rank.stdout.readline() == "ready\n"
        time.sleep(1.0)  # by then it waits
        rank.terminate()
        try:
            _, errors = rank.communicate(timeout=300)
        finally:
            rank.kill()
    assert (rank.returncode, errors) == (75, "stopped by SIGTERM before all ranks had met\n")


@pytest.fixture
def asked_before() -> Iterator[tuple[int, int]]:
    """A pipe into which Python writes the numbers of signals, as asyncio has it do; what it was before, afterwards."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handler = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    before = signal.set_wakeup_fd(writer)
    yield reader, writer
    signal.set_wakeup_fd(before)
    signal.signal(signal.SIGUSR1, handler)
    os.close(reader)
    os.close(writer)


def test_who_asked_for_signals_before_is_told_and_has_them_again(asked_before: tuple[int, int]) -> None:
    reader, _ = asked_before
    guard = StartGuard(StopRequest(), {"RANK": "0"}, stop_seconds=600)
    signal.raise_signal(signal.SIGUSR1)
    guard.close()
    guard.close()
    assert os.read(reader, 1) == bytes([signal.SIGUSR1]), "also what came just before"
    signal.raise_signal(signal.SIGUSR1)
    assert os.read(reader, 1) == bytes([signal.SIGUSR1])


def test_who_asks_for_signals_meanwhile_keeps_them(asked_before: tuple[int, int]) -> None:
    reader, writer = asked_before
    signal.set_wakeup_fd(-1)
    guard = StartGuard(StopRequest(), {"RANK": "0"}, stop_seconds=600)
    signal.set_wakeup_fd(writer)
    guard.close()
    signal.raise_signal(signal.SIGUSR1)
    assert os.read(reader, 1) == bytes([signal.SIGUSR1])
