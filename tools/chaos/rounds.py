"""A run from its beginning to its end, left in peace or killed and started again as planned."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.chaos.diary import Diaries
from tools.chaos.plan import Kill
from tools.chaos.processes import Start, kill_all

GONE_WITHIN = 15.0
"""Seconds in which all processes of a start have to be gone after one of them was killed."""

STUCK_AFTER = 120.0
"""Seconds without a step after which a start is given up."""


OUTLIVED = 4
"""Steps that a run goes on with after it has lost a worker, before what is left of it is struck."""


class RunFailed(Exception):
    """A start ended by itself with an error, or hangs; its text says which and shows the end of its log."""


@dataclass(frozen=True)
class Run:
    """Place of a run, and what it is started with."""

    folder: Path
    task: str
    config: Path
    overrides: Sequence[str]
    ranks: int

    @property
    def experiment(self) -> Path | None:
        """Its experiment folder, once there is one to go on in."""
        return max((path.parent for path in self.folder.glob("experiments/experiment_*/config.yaml")), default=None)

    def start(self, number: int) -> Start:
        """Starts it, or goes on in its folder: start ``number``, counted from 0."""
        arguments = ["--config", str(self.config), *self.overrides, f"experiment.root={self.folder / 'experiments'}"]
        if self.experiment is not None:
            arguments = ["--resume", str(self.experiment)]
        diaries = self.folder.resolve() / f"diary_{number:02d}"
        diaries.mkdir(parents=True)
        return Start(self.task, arguments, self.ranks, diaries, self.folder / f"start_{number:02d}.log")

    def diaries(self) -> list[Diaries]:
        """Returns what each start has written, in their order."""
        folders = sorted(self.folder.glob("diary_*"))
        return [Diaries(folder, self.ranks).read() for folder in folders]


@dataclass(frozen=True)
class Pace:
    """Speed of the uninterrupted run."""

    seconds_to_first_step: float
    seconds_per_step: float


@dataclass
class Struck:
    """One kill as it happened."""

    kill: Kill
    what: str
    """Which process."""
    step: int | None
    """Furthest step begun before; None if none was."""
    last_step: int | None
    """Furthest step that those who were not struck have begun; None if none was."""
    seconds: float | None
    """Until all processes of this start were gone; None if some had to be killed after :data:`GONE_WITHIN`."""
    resumed_at: int | None = None
    """First step of the next start; None if that was killed before it."""


def run_in_peace(run: Run) -> Pace:
    """Runs to the end. Raises RunFailed if that fails."""
    with run.start(0) as start:
        _until(start, lambda: start.diaries.step is not None)
        to_first = start.seconds
        _until(start, lambda: False)
        _expect_success(start)
        steps = (start.diaries.read().step or 0) + 1
        return Pace(to_first, (start.seconds - to_first) / steps)


def run_under_fire(run: Run, kills: Sequence[Kill], pace: Pace) -> Iterator[Struck]:
    """Runs to the end with all of ``kills`` on the way; yields each as soon as it is over.

    Raises:
        RunFailed: a start has failed that was not struck.
    """
    before: Struck | None = None
    for number, kill in enumerate([*kills, None]):
        struck = failure = None
        with run.start(number) as start:
            try:
                struck = _strike(run, start, kill, pace) if kill else None
                if struck is None:
                    _until(start, lambda: False)
                    _expect_success(start)
            except RunFailed as error:
                failure = error
            if before is not None:
                before.resumed_at = start.diaries.read().first_step
                yield before
        if failure is not None:
            raise failure
        if struck is None:
            return
        before = struck


def _strike(run: Run, start: Start, kill: Kill, pace: Pace) -> Struck | None:
    """Waits for the moment of ``kill``, strikes, and waits for the end. None if the run had finished before."""
    if kill.moment == "start":
        _until(start, lambda: _has_begun(start) or start.seconds >= kill.delay * pace.seconds_to_first_step)
    else:
        _until(start, lambda: _has_begun(start, kill.step))
    what, pids = start.targets(kill)
    if kill.moment == "save":
        before = _checkpoint_names(run)
        _until(start, lambda: _checkpoint_names(run) != before or _has_begun(start, kill.latest))
        time.sleep(kill.delay * 0.02)
    elif kill.moment == "step":
        time.sleep(kill.delay * 1.5 * pace.seconds_per_step)
    if start.code() is not None:
        _expect_success(start)
        return None
    kill_all(pids)
    if kill.victim == "all":
        kill_all(process.pid for process in start.living())  # those that were made since
    step = start.diaries.read().step
    if what.startswith("worker"):  # another one takes its place: the run goes on, until all of it is struck
        _until(start, lambda: _has_begun(start, (step or 0) + OUTLIVED))
        if start.code() is not None:
            _expect_success(start)
            return None
        kill_all(process.pid for process in start.living())
        step = start.diaries.read().step
    seconds = start.wait_gone(GONE_WITHIN)
    return Struck(kill, what, step, start.diaries.read().step, seconds)


def _has_begun(start: Start, step: int = 0) -> bool:
    return start.diaries.step is not None and start.diaries.step >= step


def _until(start: Start, reached: Callable[[], bool]) -> None:
    """Returns as soon as ``reached`` holds or the start has ended. Raises RunFailed if its steps come to a halt."""
    step, seen = None, time.monotonic()
    while start.code() is None and not (start.diaries.read() and reached()):
        if start.diaries.step != step:
            step, seen = start.diaries.step, time.monotonic()
        if time.monotonic() - seen > STUCK_AFTER:
            raise RunFailed(f"no step for {STUCK_AFTER:g} s after {step}; the log ends with\n{_tail(start.log)}")
        time.sleep(0.002)


def _expect_success(start: Start) -> None:
    gone = start.wait_gone(GONE_WITHIN)
    if start.code() != 0:
        raise RunFailed(f"ended by itself with code {start.code()}; {start.log} ends with\n{_tail(start.log)}")
    if gone is None:
        raise RunFailed(f"left processes behind when it had finished; see {start.log}")


def _checkpoint_names(run: Run) -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        if run.experiment is not None:
            return set(os.listdir(run.experiment / "checkpoints"))
    return set()


def _tail(log: Path, lines: int = 15) -> str:
    """Returns the last lines of a log, without what torchrun adds when a rank has failed."""
    own = log.read_text(errors="replace").partition(" torch/distributed/elastic/")[0]
    return "\n".join(own.splitlines()[-lines:])
