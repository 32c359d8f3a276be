"""Small groups of watched ranks, in which one of them can be made to fail in every way there is."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from engine.distributed.heartbeat import Heartbeat
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.log import setup_logging
from engine.process.signals import StopRequest
from engine.run_folder.failure import Failure, read_failure, write_failure
from engine.watchdog.verdict import Limits
from engine.watchdog.watchdog import Watchdog
from tests.distributed import FORKSERVER, _run_rank, agent_store, torchrun_environment

LIMIT = 15.0
"""Seconds in which a failure has to end all ranks."""

STEP = 3
"""The step in which the culprit does what it is to do."""


@dataclass
class Running:
    """Processes of a group, and the folder they write in."""

    processes: list[Any]
    folder: Path

    def codes(self, within: float = 60.0) -> list[int]:
        """Exit codes of all ranks that end within the given time; it fails the test if one does not."""
        deadline = time.monotonic() + within
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        assert None not in codes, f"still running after {within} s: {codes}\n{self.output()}"
        return codes

    def wait_for(self, name: str, within: float = 60.0) -> Path:
        """A file that a rank writes into the folder."""
        deadline = time.monotonic() + within
        while not (path := self.folder / name).exists():
            assert time.monotonic() < deadline, f"no {name} after {within} s\n{self.output()}"
            time.sleep(0.02)
        return path

    def failure(self) -> Failure:
        failure = read_failure(self.folder / "FAILED.json")
        assert failure is not None, self.output()
        return failure

    def seconds_since(self, name: str) -> float:
        return time.time() - (self.folder / name).stat().st_mtime

    def output(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("rank_*.*t*")))


@contextmanager
def running(world_size: int, function: Callable[..., None], *args: Any) -> Iterator[Running]:
    """Ranks that each run ``function(ranks, folder, *args)``; all are killed in the end."""
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name), agent_store()
        processes = []
        for rank in range(world_size):
            env = {} if world_size == 1 else torchrun_environment(rank, world_size, store.port)
            inputs = (env, folder, folder / "meeting", function, (folder, *args))
            processes.append(FORKSERVER.Process(target=_run_rank, args=(rank, *inputs)))
            processes[-1].start()
        try:
            yield Running(processes, folder)
        finally:
            for process in processes:
                process.kill()
                process.join()


def train(
    ranks: Ranks,
    folder: Path,
    deed: str = "",
    culprit: int = 1,
    timeout: float = 60.0,
    steps: int = 10,
    collective_seconds: float = 60.0,
    start_timeout: float = 60.0,
    when: int = STEP,
) -> None:
    """Some steps with a collective each, under watch. In one of them the culprit does its ``deed``."""
    stop, heartbeat = ranks.stop.install(), ranks.heartbeat

    def record(failure: Failure) -> None:
        (folder / f"ended_{ranks.rank}").write_text(failure.reason)
        write_failure(folder / "FAILED.json", failure)

    group = dist.new_group(timeout=timedelta(seconds=collective_seconds)) if ranks.world_size > 1 else None
    with setup_logging(ranks.rank, ranks.world_size) as log:
        log.attach_file(folder / f"rank_{ranks.rank}.log")
        limits = Limits(timeout, start_timeout)
        with Watchdog(ranks, limits, record, lambda: folder / f"rank_{ranks.rank}.log") as watchdog:
            try:
                (folder / f"pid_{ranks.rank}").write_text(str(os.getpid()))
                for step in range(steps):
                    heartbeat.at("data", step)
                    if step == when:
                        (folder / f"step_{ranks.rank}").touch()
                        if ranks.rank == culprit or deed.startswith("all "):
                            do(deed, folder, heartbeat)
                    heartbeat.at("backward")
                    stops = torch.tensor([float(bool(stop))])
                    if group is not None:
                        dist.all_reduce(stops, group=group)
                    heartbeat.at("update")
                    if stops.item():
                        hear(stop, folder / f"stopped_{ranks.rank}")
                        break
                    time.sleep(0.01)
                heartbeat.at("end")
            except BaseException as error:
                failure = watchdog.settle(error)
                record(failure)
                watchdog.close()
                os._exit(failure.exit_code)


def hear(stop: StopRequest, answer: Path) -> None:
    """Writes which signal this rank has heard of, for which it may take as long as a failure."""
    deadline = time.monotonic() + LIMIT
    while stop.signal is None and time.monotonic() < deadline:
        time.sleep(0.01)
    answer.write_text(stop.signal.name if stop.signal is not None else "nothing")


def do(deed: str, folder: Path, heartbeat: Heartbeat) -> None:
    """What goes wrong."""
    if deed == "raise":
        raise ValueError("no such thing")
    if deed == "user error":
        raise UserError("data.root: nothing there")
    if deed == "kill with workers":
        worker = get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        worker.start()
        (folder / "worker").write_text(str(worker.pid))
    if deed.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "sleep":
        time.sleep(600)
    if deed == "all measure":
        heartbeat.at("measure")
    if deed in ("all measure", "all sleep a little"):
        time.sleep(4)
    if deed == "sleep behind a collective":
        heartbeat.at("backward")
        dist.all_reduce(torch.zeros(1))
        time.sleep(600)
    if deed == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if deed == "hold the lock":
        sys.setswitchinterval(1e9)
        sum(range(10**12))
    while deed == "be slow" and not (folder / "go").exists():
        heartbeat.tick()
        time.sleep(0.02)
