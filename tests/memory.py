"""Memory of the processes that run tests: it is given back between tests, and has a limit."""

from __future__ import annotations

import ctypes
import gc
import platform
import resource
from pathlib import Path

from engine.devices.allocator import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD

MB = 1_000_000
LIMIT = 1_500 * MB
"""Bytes that a process of the tests may have for itself: several run side by side, on small machines too. The pages of
torch's libraries, some 0.6 GB more, are there once for all."""
KEPT = 32 * MB
LARGE_BLOCK = 4 * 1024 * 1024
STATM = Path("/proc/self/statm")
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


class GivesBack:
    """Gives the system back what tests have freed, once it is much.

    A training in the process of pytest lets the C library keep all memory, see :mod:`engine.devices.allocator`; here
    it is not wanted for a next step, but missed by other processes.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" and STATM.exists() else None
        self._resident = 0

    def __call__(self) -> None:
        if self._libc is None:
            return
        self._libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
        self._libc.mallopt(M_TRIM_THRESHOLD, KEPT)
        if resident() > self._resident + KEPT:
            gc.collect()
            self._libc.malloc_trim(0)
            self._resident = resident()


class Limit:
    """Finds the test after which this process has had more than :data:`LIMIT`."""

    def __init__(self) -> None:
        self._peak = 0
        self._growth: dict[str, int] = {}

    def fault(self, test: str, peak: int) -> str | None:
        """Notes the highest memory so far, in bytes; returns what is wrong if ``test`` raised it beyond the limit."""
        grown, self._peak = peak - self._peak, max(peak, self._peak)
        if grown <= 0:
            return None
        self._growth[test] = grown
        if peak <= LIMIT:
            return None
        largest = sorted(self._growth.items(), key=lambda item: -item[1])[:5]
        rows = "\n".join(f"  {size / MB:.0f} MB {name}" for name, size in largest)
        return (
            f"with this test, a process had {peak / MB:.0f} MB for itself, of {LIMIT / MB:.0f} that it may; "
            f"use smaller models or arrays, in those tests first that raised it most:\n{rows}"
        )


def resident() -> int:
    """Bytes of this process that are in memory now, on Linux."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """Bytes that this process has had in memory at most, without files' pages, which processes share; 0 if unknown."""
    if not STATUS.exists():
        return 0
    sizes = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    most, files = (int(sizes.get(name, "0").split()[0]) for name in ("VmHWM", "RssFile"))
    return (most - files) * 1024


def forget_peak() -> int:
    """Has the system forget :func:`peak`, and returns what this process has now."""
    if CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")
    return peak()
