"""What the batches of worker processes need of memory; and workers that are killed: by what, and how it goes on."""

from __future__ import annotations

import re
import shutil
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.data.batch_plan import Draw

READY_BYTES = 2 * 2**30
"""Of the batches that a rank's workers keep ready together."""
SHARED = Path("/dev/shm")
"""Where they lie, on Linux."""
RESTARTS = 3
"""How often lost workers are replaced, before it is given up."""
_FULL = re.compile(r"unable to (write|open|mmap|resize|allocate|create|\w+) .*(torch_|shm|shared memory)")
"""What torch says of shared memory that is full, in a worker that has noticed it; others die of SIGBUS."""


def room_for_batches(local_ranks: int) -> int:
    """Returns the bytes that batches of one of a node's ranks may take: half of its part of shared memory, if less."""
    return min(READY_BYTES, shutil.disk_usage(SHARED).free // 2 // local_ranks) if SHARED.is_dir() else READY_BYTES


def fitting_prefetch(prefetch: int, workers: int, batch_bytes: int, room: int) -> tuple[int, str]:
    """Returns how many batches each worker keeps ready, at least one, and what to say if it is fewer than asked for."""
    fitting = max(1, min(prefetch, room // max(1, workers * batch_bytes)))
    if fitting == prefetch:
        return prefetch, ""
    part = f"half of its part of what is free in {SHARED} (docker run --shm-size=8g)"
    return fitting, (
        f"data.prefetch: each of {workers} workers keeps {fitting} instead of {prefetch} batches of "
        f"{batch_bytes / 1e6:.3g} MB ready: of a rank they may take {room / 1e6:.4g} MB"
        + ("" if room == READY_BYTES else f", {part}")
    )


def told_of_cores(workers: int, cores: int) -> str:
    """Returns what to say of so many worker processes of a rank on a machine's cores; nothing if there are enough."""
    if workers <= cores:
        return ""
    text = f"data.workers: {workers} processes share {cores} cores: more of them read no faster, and take memory"
    return f"{text}; auto is a rank's cores less one"


class WorkerLostError(RuntimeError):
    """Processes that read images are killed again and again."""


class Lost(Exception):
    """A worker is gone."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(by)
        self.by = by


class Unread:
    """Batches of draws that have not arrived yet: iterating again begins with the first of them."""

    def __init__(self, batches: Iterable[list[Draw]]) -> None:
        self._source, self._sent = iter(batches), deque[list[Draw]]()

    def __iter__(self) -> Iterator[list[Draw]]:
        yield from list(self._sent)
        for batch in self._source:
            self._sent.append(batch)
            yield batch

    def arrived(self) -> None:
        """Notes that the first has."""
        self._sent.popleft()


def loss_of(error: Exception, exit_codes: Iterable[int | None]) -> signal.Signals | None:
    """Returns the signal that has ended one of the workers; None if the error is another.

    Full shared memory counts as SIGBUS, and comes before others.

    Args:
        error: What has been raised where their batches are taken.
        exit_codes: Of all workers, as multiprocessing has them: negative numbers of signals.
    """
    numbers = {-code for code in exit_codes if code is not None and code < 0}
    if signal.SIGBUS in numbers or _FULL.search(str(error)):
        return signal.SIGBUS
    return signal.Signals(min(numbers)) if numbers else None


def told_of_loss(loss: signal.Signals, workers: int) -> tuple[str, int]:
    """Returns what to say where one of ``workers`` was lost, and how many are to go on."""
    if loss == signal.SIGBUS:
        free = f" ({shutil.disk_usage(SHARED).free / 2**20:.0f} MB are free)" if SHARED.is_dir() else ""
        return (
            f"data.workers: shared memory, /dev/shm, has no room for the batches of {workers} processes{free}; give "
            "the container or job more (docker run --shm-size=8g), or set smaller data.workers and data.prefetch"
        ), 0
    return (
        f"data.workers: a process that reads images was killed by {loss.name}, mostly for lack of memory; ask for more "
        f"(--mem), or set fewer than {workers} data.workers"
    ), workers
