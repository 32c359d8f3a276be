"""One start of the run: its processes, however deep, found by what they inherit, ended and waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.chaos.diary import FOLDER, Diaries
from tools.chaos.plan import Kill


@dataclass(frozen=True)
class Process:
    """A process as Linux shows it in /proc."""

    pid: int
    parent: int
    rank: str | None
    """torchrun's number for the rank that it is, or belongs to."""


class Start:
    """The witnessed training, started once. Leaving its block kills what is left of it."""

    def __init__(self, task: str, arguments: Sequence[str], ranks: int, diaries: Path, log: Path) -> None:
        """Starts ``python -m tools.chaos.witness TASK`` with ``arguments``, by torchrun if there are several ranks."""
        self.log, self.ranks = log, ranks
        self.diaries = Diaries(diaries, ranks)
        self.began = time.monotonic()
        self._mark = f"{FOLDER}={diaries}"
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        with log.open("wb") as output:
            self._launcher = subprocess.Popen(
                [sys.executable, *torchrun, "-m", "tools.chaos.witness", task, *arguments],
                env={**os.environ, FOLDER: str(diaries)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Start:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait_gone(0.0)

    @property
    def seconds(self) -> float:
        """Counts since the start."""
        return time.monotonic() - self.began

    def code(self) -> int | None:
        """Returns the launcher's exit code; None while it runs."""
        return self._launcher.poll()

    def living(self) -> list[Process]:
        """Returns all processes of this start, but those that have ended and only wait to be collected."""
        return [found for name in os.listdir("/proc") if name.isdigit() and (found := self._process(int(name)))]

    def targets(self, kill: Kill) -> tuple[str, list[int]]:
        """Returns what ``kill`` is to strike now, in words and as process ids.

        There may be no worker or, early in a start, no rank yet: then it is the rank or the launcher in its place.
        """
        living = self.living()
        launcher = self._launcher.pid
        if kill.victim == "all":
            return "all", [process.pid for process in living]
        if kill.victim == "launcher":
            return "launcher", [launcher]
        rank = int(kill.pick * self.ranks)
        own = [p.pid for p in living if p.parent == launcher and p.rank == str(rank)] if self.ranks > 1 else [launcher]
        workers = set(self.diaries.read().readers(rank)) & {process.pid for process in living} - set(own)
        if kill.victim == "worker" and workers:
            return f"worker of rank {rank}", [sorted(workers)[int(kill.pick * 1000) % len(workers)]]
        return (f"rank {rank}", own) if own else ("launcher", [launcher])

    def wait_gone(self, timeout: float) -> float | None:
        """Waits until all processes are gone and returns how long that took; kills what is left after ``timeout``.

        Returns None if there was something left to kill.
        """
        begin, left = time.monotonic(), False
        while self.code() is None or self.living():
            if time.monotonic() - begin >= timeout:
                left = True
                kill_all(process.pid for process in self.living())
            time.sleep(0.02)
        return None if left else time.monotonic() - begin

    def _process(self, pid: int) -> Process | None:
        """Returns the process if it belongs to this start and lives."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            if self._mark not in environment:
                return None
            state, parent = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:  # ended since, or somebody else's
            return None
        rank = next((entry.removeprefix("RANK=") for entry in environment if entry.startswith("RANK=")), None)
        return None if state in "ZX" else Process(pid, int(parent), rank)


def kill_all(pids: Iterable[int]) -> None:
    """Sends SIGKILL to each that still is."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
