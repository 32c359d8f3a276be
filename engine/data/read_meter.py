"""What reading processes spend their time on, and the hint where a run waits for them."""

from __future__ import annotations

import logging
import os
from multiprocessing.sharedctypes import RawArray

from torch.utils.data import get_worker_info

log = logging.getLogger(__name__)

WORTH_A_HINT = 0.1
"""Part of the time in which a run waits for data, from which on it could be clearly faster."""
RECORDS = 3
"""Records in a row, the first of which tells of workers that had just begun."""


class ReadMeter:
    """Counts in memory that processes share: for each, seconds of reading, and of these, of waiting for files.

    Args:
        workers: Worker processes; 0: the main process reads.
        exact: Whether images are decoded whole, see `data.decode`.
    """

    def __init__(self, workers: int, exact: bool = False) -> None:
        self.exact = exact
        rows = max(1, workers)
        self._reading, self._waiting = RawArray("d", rows), RawArray("d", rows)

    def add(self, seconds: float, waited_so_far: float) -> None:
        """Adds what this process has needed for a batch; ``waited_so_far``: for files, since it began."""
        worker = get_worker_info()
        row = 0 if worker is None else worker.id % len(self._reading)
        self._reading[row] += seconds
        self._waiting[row] = waited_so_far

    @property
    def file_fraction(self) -> float:
        """Returns the part of the time in which files were waited for, over all processes."""
        seconds = sum(self._reading)
        return sum(self._waiting) / seconds if seconds else 0.0


class WaitHint:
    """Says once what a run could do that waits for its data, record after record."""

    def __init__(self, meter: ReadMeter | None, workers: int) -> None:
        self._meter, self._workers = meter, workers
        self._records, self._said = 0, False

    def record(self, wait_fraction: float) -> None:
        """Takes the part of the time, since the last record, in which data was waited for."""
        self._records = self._records + 1 if wait_fraction > WORTH_A_HINT else 0
        if self._records > RECORDS and not self._said:
            self._said = True
            log.warning("data: %s", self._text(wait_fraction))

    def _text(self, wait_fraction: float) -> str:
        begin = f"training waits for its images {wait_fraction:.0%} of the time, "
        if not self._workers:
            return begin + "which its own process reads: set data.workers=auto"
        files = self._meter.file_fraction if self._meter is not None else 0.0
        if files > 0.5:
            return begin + (
                f"and those who read them wait for files {files:.0%} of theirs: the storage is slow; raise "
                "data.read_threads or data.workers, or copy the data to the node (docs/data.md#slow-storage)"
            )
        less = "data.decode=fast, " if self._meter is not None and self._meter.exact else ""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return begin + (
            f"and those who read them compute ({self._workers} data.workers, {cores} cores): ask for more cores a "
            f"device, {less}smaller image files (tools.pack --short-side), or less augmentation (docs/data.md#decoding)"
        )
