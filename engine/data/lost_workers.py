"""Worker processes that are killed: by what, in words, and with how many it goes on."""

from __future__ import annotations

import os
import re
import shutil

RESTARTS = 3
"""How often lost workers are replaced, before it is given up."""
_LOST = re.compile(
    r"(DataLoader worker \(pid.*?\) (?:is killed by signal: .*|exited unexpectedly$)"
    r"|unable to (?:write|open|mmap|resize|allocate|create) .*(?:torch_|shm|shared memory).*)"
)
"""What torch says of workers that are gone, and of shared memory that is full."""
_FULL = re.compile(r"[Bb]us error|shared memory|No space left|\(28\)|shm")


class WorkerLostError(RuntimeError):
    """Processes that read images are killed again and again."""


def loss_of(error: RuntimeError) -> str | None:
    """Returns what torch says of workers that are gone; None if the error is another."""
    found = _LOST.search(str(error))
    return found[1] if found is not None else None


def told_of_loss(reason: str, workers: int) -> tuple[str, int]:
    """Returns what to say of workers that are gone, for ``reason`` as torch has it, and how many are to go on."""
    if _FULL.search(reason):
        free = f" ({shutil.disk_usage('/dev/shm').free / 2**20:.0f} MB are free)" if os.path.isdir("/dev/shm") else ""
        return (
            f"data.workers: shared memory, /dev/shm, has no room for the batches of {workers} processes{free}; give "
            "the container or job more (docker run --shm-size=8g), or set smaller data.workers and data.prefetch"
        ), 0
    signalled = re.search(r"killed by signal: (\w[\w ]*)", reason)
    how = f"by a signal ({signalled[1].strip()})" if signalled else "or ended without a word"
    return (
        f"data.workers: a process that reads images was killed {how}, mostly for lack of memory; ask for more (--mem), "
        f"or set fewer than {workers} data.workers"
    ), workers
