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
from typing import Any

import pytest
import torch

from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import EXIT_USER_ERROR, UserError
from engine.run_folder.failure import Failure, read_failure, write_failure
from engine.watchdog import verdict
from engine.watchdog import watchdog as module
from engine.watchdog.verdict import Limits
from engine.watchdog.watchdog import Watchdog
from tests.distributed import agent_store, clean_environment, torchrun_environment
from tests.engine.watchdog.watched import LIMIT, STEP, running, train

HOST = socket.gethostname()
MINUTE = Limits(60.0, 60.0)
LAUNCHER = """
import json, subprocess, sys, time
program = "import sys; from tests.engine.watchdog.test_watchdog import launched; launched(sys.argv[1])"
for env in json.loads(sys.argv[2]):
    subprocess.Popen([sys.executable, "-c", program, sys.argv[1]], env=env)
time.sleep(600)
"""


@pytest.mark.parametrize("world_size, culprit", [(2, 0), (2, 1), (3, 1)])
def test_an_exception_ends_all_ranks(world_size: int, culprit: int) -> None:
    with running(world_size, train, "raise", culprit) as group:
        assert group.codes() == [1] * world_size
        assert group.seconds_since(f"step_{culprit}") < LIMIT
        failure = group.failure()
        assert failure.reason == f"rank {culprit} on {HOST} failed at step {STEP} (data): ValueError: no such thing"
        assert (failure.rank, failure.host, failure.step, failure.exception) == (culprit, HOST, STEP, "ValueError")
        assert "in do\n" in failure.traceback
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
        assert (failure.rank, failure.host, failure.step) == (culprit, HOST, STEP)
        for rank in {0, 1, 2} - {culprit}:
            said = (group.folder / f"ended_{rank}").read_text()
            assert said.startswith(f"rank {culprit} on {HOST} vanished, last heard of at step "), said


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_rank_that_sleeps_for_ever_is_named_with_the_stacks_of_all(culprit: int) -> None:
    with running(2, train_with_nccl, "sleep", culprit, 2.0) as group:
        assert group.codes() == [1, 1]
        assert group.seconds_since(f"step_{culprit}") < LIMIT
        failure, other = group.failure(), 1 - culprit
        assert failure.reason == (
            f"rank {culprit} on {HOST} hangs at step {STEP} in data; rank {other} on {HOST} waits in backward "
            "(no progress for 2 s, distributed.timeout_seconds)"
        )
        assert (failure.rank, failure.step, failure.exit_code) == (culprit, STEP, 1)
        assert failure.traceback.startswith(f"rank {culprit} on {HOST}:\nthread MainThread:")
        for rank, function in ((culprit, "in do\n"), (other, "in all_reduce\n")):
            assert function in failure.traceback
            assert function in (group.folder / f"rank_{rank}.log").read_text()
            assert "MainThread" not in (group.folder / f"rank_{rank}.txt").read_text()  # the console is spared
            assert (group.folder / f"nccl_rank_{rank}.json").exists(), "NCCL's last collectives lie beside the log"


def train_with_nccl(ranks: Ranks, folder: Path, *args: Any) -> None:
    """As :func:`train`, with a flight recorder that writes."""
    module.write_flight_record = lambda path: path.touch()  # type: ignore[assignment]
    train(ranks, folder, *args)


def test_a_rank_that_sleeps_where_the_others_wait_for_it_is_not_mistaken() -> None:
    """Its place says no more than theirs, but the stacks do."""
    with running(2, train, "sleep behind a collective", 1, 2.0) as group:
        assert group.codes() == [1, 1]
        failure = group.failure()
        assert f"all ranks hang at step {STEP} in backward (no progress for 2 s" in failure.reason
        assert failure.rank is None
        assert "in do\n" in failure.traceback


@pytest.mark.parametrize("culprit, deed", [(0, "stop"), (1, "stop"), (1, "hold the lock")])
def test_a_rank_that_cannot_speak_is_named_by_the_others(culprit: int, deed: str) -> None:
    when = 250 if deed == "hold the lock" else STEP  # some heartbeats later than the first step
    with running(2, train, deed, culprit, 2.0, when + 1, 60.0, 60.0, when) as group:
        group.processes[1 - culprit].join(60)
        assert group.processes[1 - culprit].exitcode == 1, group.output()
        assert group.seconds_since(f"step_{culprit}") < LIMIT
        failure = group.failure()
        assert failure.reason.startswith(f"rank {culprit} on {HOST} is silent since step "), failure
        assert failure.rank == culprit
        if deed == "hold the lock":  # which keeps every other thread of Python from saying where it is
            log, deadline = group.folder / f"rank_{culprit}.log", time.monotonic() + LIMIT
            while "in do\n" not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.1)
            assert "most recent call first" in log.read_text() and "in do\n" in log.read_text()


@pytest.mark.parametrize("training", [True, False], ids=["training goes on", "all wait"])
def test_rank_0_behind_a_network_that_is_gone_is_lost_only_if_the_others_wait(training: bool) -> None:
    with running(2, lose_rank_0, training) as group:
        group.processes[1].join(60)
        assert group.processes[1].exitcode == (0 if training else 1), group.output()
        if not training:
            failure = group.failure()
            assert failure.rank == 0 and failure.retry and verdict.CUT_OFF in failure.reason


def lose_rank_0(ranks: Ranks, folder: Path, training: bool) -> None:
    """Rank 0 falls silent and its kernel acknowledges nothing, as one says that is asked about the connection."""
    verdict.UNREACHABLE_SECONDS, verdict.unacknowledged_seconds = 2.0, lambda connection: 30.0
    with Watchdog(ranks, MINUTE, lambda failure: write_failure(folder / "FAILED.json", failure)):
        for step in range(2):
            ranks.heartbeat.at("data", step)
        if ranks.rank == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        begin = time.monotonic()
        while time.monotonic() < begin + (6 if training else 45):
            if training:
                ranks.heartbeat.tick()
            time.sleep(0.05)
        os._exit(0)


@pytest.mark.parametrize("deed, when", [("all sleep a little", 0), ("all measure", STEP)])
def test_a_slow_start_and_figures_that_take_long_are_no_hang(deed: str, when: int) -> None:
    with running(2, train, deed, 1, 1.0, STEP + 2, 60.0, 60.0, when) as group:
        assert group.codes() == [0, 0], group.output()


def test_one_that_hangs_at_the_start_is_named_when_its_own_limit_is_passed() -> None:
    with running(2, train, "sleep", 1, 1.0, 10, 60.0, 3.0, 0) as group:
        assert group.codes() == [1, 1]
        assert group.failure().reason == (
            f"rank 1 on {HOST} hangs at step 0 in data; rank 0 on {HOST} waits in backward "
            "(no progress for 3 s, distributed.start_timeout_seconds)"
        )


def test_one_that_hangs_where_the_others_meet_it_in_a_collective_of_the_start_is_named() -> None:
    with running(2, meet, 3.0) as group:
        assert group.codes() == [1, 1], group.output()
        assert "rank 1 on" in (reason := group.failure().reason) and "hangs at step 0 in start" in reason


def meet(ranks: Ranks, folder: Path, limit: float) -> None:
    """All ranks meet twice before they begin; rank 1 does not come."""

    def record(failure: Failure) -> None:
        write_failure(folder / "FAILED.json", failure)

    with Watchdog(ranks, Limits(1.0, limit), record):
        ranks.barrier()
        if ranks.rank == 1:
            time.sleep(600)
        ranks.barrier()


def test_a_collective_that_times_out_is_the_fault_of_the_late_rank() -> None:
    with running(2, train, "be slow", 1, 60.0, 10, 1.0) as group:
        assert group.codes() == [1, 1]
        assert group.seconds_since("step_1") < LIMIT
        assert group.failure().reason == (
            f"rank 1 on {HOST} hangs at step {STEP} in data; rank 0 on {HOST} waits in backward "
            "(rank 0 waited for distributed.timeout_seconds)"
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_rank_is_heard_by_all(number: signal.Signals) -> None:
    with running(3, train, "", 1, 60.0, 10**6) as group:
        for rank in range(3):
            group.wait_for(f"step_{rank}")
        os.kill(int((group.folder / "pid_1").read_text()), number)
        assert group.codes() == [0, 0, 0], group.output()
        assert [(group.folder / f"stopped_{rank}").read_text() for rank in range(3)] == [number.name] * 3


@pytest.mark.parametrize("first", [0, 1])
def test_ranks_may_finish_seconds_apart(first: int) -> None:
    with running(3, finish, first) as group:
        assert group.codes() == [0, 0, 0], group.output()
        assert not list(group.folder.glob("ended_*"))


def finish(ranks: Ranks, folder: Path, first: int) -> None:
    with Watchdog(ranks, MINUTE, lambda failure: os._exit(9)):
        if ranks.rank != first:
            time.sleep(1.5 + ranks.rank / 2)


def test_a_rank_does_not_wait_for_a_stopped_one_to_say_good_bye() -> None:
    with running(2, leave_a_stopped_one) as group:
        group.processes[0].join(60)
        assert group.processes[0].exitcode == 0, group.output()
        assert float((group.folder / "seconds").read_text()) < LIMIT


def leave_a_stopped_one(ranks: Ranks, folder: Path) -> None:
    with Watchdog(ranks, MINUTE, lambda failure: os._exit(9)):
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.5)
        begin = time.monotonic()
    (folder / "seconds").write_text(str(time.monotonic() - begin))
    os._exit(0)  # without leaving the process group, which would wait


def test_the_death_of_the_launcher_ends_all_its_ranks(tmp_path: Path) -> None:
    store = agent_store()
    environments = [clean_environment(torchrun_environment(rank, 2, store.port)) for rank in range(2)]
    command = [sys.executable, "-c", LAUNCHER, os.fspath(tmp_path), json.dumps(environments)]
    with subprocess.Popen(command) as launcher:
        try:
            deadline = time.monotonic() + 90
            while not all((tmp_path / f"step_{rank}").exists() for rank in range(2)):
                assert time.monotonic() < deadline and launcher.poll() is None
                time.sleep(0.05)
        finally:
            launcher.kill()
    pids = [int((tmp_path / f"pid_{rank}").read_text()) for rank in range(2)]
    begin = time.monotonic()
    try:
        while any(lives(pid) for pid in pids):
            assert time.monotonic() < begin + LIMIT
            time.sleep(0.05)
    finally:
        for pid in filter(lives, pids):
            os.kill(pid, signal.SIGKILL)
    failure = read_failure(tmp_path / "FAILED.json")
    assert failure is not None and failure.retry
    assert failure.reason.startswith(f"the launcher (pid {launcher.pid}) of rank {failure.rank} on {HOST} vanished at")


def launched(folder: str) -> None:
    """A rank of its own, as torchrun would start it."""
    from engine.config.run import DistributedConfig
    from engine.distributed.connect import connect
    from engine.distributed.layout import detect_layout

    ranks = connect(DistributedConfig(device="cpu", timeout_seconds=60.0), detect_layout(os.environ), Path(folder))
    train(ranks, Path(folder), steps=10**6)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_single_process_is_watched_too() -> None:
    with running(1, train, "sleep", 0, 1.0) as group:
        assert group.codes() == [1]
        assert group.failure().reason == (
            f"rank 0 on {HOST} hangs at step {STEP} in data (no progress for 1 s, distributed.timeout_seconds)"
        )


def watchdog_alone() -> Watchdog:
    return Watchdog(Ranks(Layout(), torch.device("cpu")), MINUTE, lambda failure: None)


def test_an_error_that_leaves_the_block_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    with pytest.raises(UserError), watchdog_alone() as watchdog:
        raise UserError("wrong")
    again = watchdog.settle(ValueError("later"))
    assert again.exit_code == EXIT_USER_ERROR
    assert again.reason.endswith("failed at step 0 (start): wrong")
    assert exits == []  # the main thread got out by itself


def test_the_first_failure_stands_and_carries_the_name_of_the_start() -> None:
    with watchdog_alone() as watchdog:
        first = watchdog.settle(ValueError("a"))
        assert watchdog.settle(RuntimeError("b")) == first
        assert first.start == watchdog.start != ""


def test_a_watchdog_that_fails_takes_leave_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """Or they would take its silence for a hang."""
    with watchdog_alone() as watchdog:
        coordinator = watchdog._coordinator
        assert coordinator is not None
        connection = coordinator._members[0].connection
        assert connection is not None
        connection.send_bytes(b"no message of ours")
        deadline = time.monotonic() + LIMIT
        while coordinator._members and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not coordinator._members
    assert "the watchdog over the other ranks has failed; going on without" in caplog.text


def test_a_closed_watch_leaves_no_thread() -> None:
    watchdog = watchdog_alone()
    watchdog.close()
    assert not watchdog._thread.is_alive()
    watchdog.close()
