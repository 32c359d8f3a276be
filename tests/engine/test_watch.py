"""What ends one rank ends all, and is named: real processes that fail in every way there is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.dist import Layout, Ranks
from engine.errors import EXIT_USER_ERROR, UserError
from engine.failure import Failure
from engine.pulse import Pulse
from engine.signals import StopRequest
from engine.watch import Watch
from tests.distributed import ROOT, clean_environment
from tests.engine.watched import LIMIT, STEP, running, train

HOST = socket.gethostname()


@pytest.mark.parametrize("culprit", [0, 1])
@pytest.mark.parametrize("world_size", [2, 3])
def test_an_exception_ends_all_ranks(world_size: int, culprit: int) -> None:
    with running(world_size, train, "raise", culprit) as group:
        assert group.codes() == [1] * world_size
        assert group.seconds_since(f"step_{culprit}") < LIMIT
        failure = group.failure()
        assert failure.reason == f"rank {culprit} on {HOST} failed at step {STEP} (data): ValueError: no such thing"
        assert (failure.rank, failure.host, failure.step, failure.exception) == (culprit, HOST, STEP, "ValueError")
        assert "in run_steps" in failure.traceback
        for rank in range(world_size):
            assert (group.folder / f"ended_{rank}").read_text() == failure.reason


def test_a_users_mistake_keeps_its_exit_code() -> None:
    with running(2, train, "user error") as group:
        assert group.codes() == [EXIT_USER_ERROR] * 2
        failure = group.failure()
        assert failure.reason == f"rank 1 on {HOST} failed at step {STEP} (data): data.root: nothing there"
        assert failure.traceback == ""


@pytest.mark.parametrize("deed", ["kill", "kill with workers"])
@pytest.mark.parametrize("culprit", [0, 1])
def test_a_killed_rank_is_named_by_all_survivors(culprit: int, deed: str) -> None:
    with running(3, train, deed, culprit) as group:
        codes = group.codes()
        assert group.seconds_since(f"step_{culprit}") < LIMIT
        if "workers" in deed:
            os.kill(int((group.folder / "worker").read_text()), signal.SIGKILL)
        assert codes.pop(culprit) == -signal.SIGKILL
        assert codes == [1, 1], group.output()
        failure = group.failure()
        assert failure.reason.startswith(f"rank {culprit} on {HOST} vanished at step "), failure
        assert (failure.rank, failure.host, failure.step) == (culprit, HOST, STEP)
        for rank in {0, 1, 2} - {culprit}:
            said = (group.folder / f"ended_{rank}").read_text()
            assert said.startswith(f"rank {culprit} on {HOST} vanished at step {STEP}"), said


@pytest.mark.parametrize("culprit", [0, 1])
@pytest.mark.parametrize("deed", ["sleep", "sleep and raise nothing else"])
def test_a_rank_that_sleeps_for_ever_is_named_with_the_stacks_of_all(culprit: int, deed: str) -> None:
    with running(2, train, deed, culprit, 2.0) as group:
        assert group.codes() == [1, 1]
        assert group.seconds_since(f"step_{culprit}") < LIMIT
        failure = group.failure()
        where = "data" if deed == "sleep" else "evaluate"
        assert failure.rank == culprit
        assert failure.reason.startswith(f"rank {culprit} on {HOST} hangs at step {STEP} in {where}"), failure
        assert "(no progress for 2 s, distributed.timeout_seconds)" in failure.reason
        if deed == "sleep":
            assert f"; rank {1 - culprit} on {HOST} waits in backward (" in failure.reason
        assert "in do\n" in failure.traceback and "in sum_" in failure.traceback
        for rank, function in ((culprit, "in do"), (1 - culprit, "in sum_")):
            assert function in (group.folder / f"rank_{rank}.log").read_text()
            assert function not in (group.folder / f"rank_{rank}.txt").read_text()  # the console is spared


@pytest.mark.parametrize("deed", ["stop", "hold the lock"])
@pytest.mark.parametrize("culprit", [0, 1])
def test_a_rank_that_cannot_speak_is_named_by_the_others(culprit: int, deed: str) -> None:
    with running(2, train, deed, culprit, 2.0) as group:
        group.processes[1 - culprit].join(60)
        assert group.processes[1 - culprit].exitcode == 1, group.output()
        assert group.seconds_since(f"step_{culprit}") < LIMIT
        failure = group.failure()
        assert failure.reason.startswith(f"rank {culprit} on {HOST} is silent since step "), failure
        assert failure.rank == culprit
