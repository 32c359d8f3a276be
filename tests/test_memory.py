"""The limit of the tests' own memory, and that they give back what they no longer need."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from engine.devices.allocator import keep_large_blocks
from tests import memory, prepared
from tests.distributed import ROOT, Group

PAGES = "kept = b'1' * 200_000_000"


def test_the_test_that_goes_beyond_the_limit_is_told_with_those_that_grew_most() -> None:
    limit = memory.Limit()
    peaks = {"start": 800, "large": 1300, "small": 1310, "none": 1310, "last": 1701, "later": 1701}
    faults = {test: limit.fault(test, size * memory.MB) for test, size in peaks.items()}
    (fault,) = (fault for fault in faults.values() if fault is not None)
    assert fault == faults["last"]
    assert "1701 MB" in fault
    assert [line.split() for line in fault.splitlines()[1:]] == [
        ["800", "MB", "start"],
        ["500", "MB", "large"],
        ["391", "MB", "last"],
        ["10", "MB", "small"],
    ]


def test_the_peak_is_this_processs_and_that_of_those_it_started() -> None:
    """Seen in a process that a small one starts: others begin with the peak of what started them."""
    code = "import subprocess, sys; from tests.memory import MB, peak; before = peak();"
    code += f"subprocess.run([sys.executable, '-c', {PAGES!r}]); print(before // MB, peak() // MB);"
    code += "kept = b'1' * (400 * MB); print(peak() // MB)"
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    before, with_child, own = map(int, done.stdout.split())
    assert 5 < before < 100 and 200 < with_child < 300 and 400 < own < 500


def test_the_peak_of_a_fork_is_known_when_it_has_ended() -> None:
    peaks = []
    for size in (1, 400 * memory.MB):
        with Group(1, [sys.executable, "-m", "timeit", "-n", "1", "-r", "1", f"b'1' * {size}"]) as group:
            (process,) = group.processes
            assert isinstance(process, prepared.Forked) and process.wait(60) == 0
            peaks.append(process.peak)
    assert peaks[0] > 100 * memory.MB, "it has torch"
    assert peaks[0] + 50 * memory.MB < peaks[1] < peaks[0] + 450 * memory.MB  # a fork shares files' pages later
    assert prepared.peak() >= peaks[1]


@pytest.mark.skipif(not memory.STATM.exists(), reason="the memory that is resident now is read on Linux")
def test_what_a_test_freed_is_given_back_although_a_training_keeps_it() -> None:
    give_back = memory.GivesBack()
    give_back()
    if not keep_large_blocks():
        pytest.skip("the C library is not glibc")
    before = memory.resident()
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(1 << 20) for _ in range(200)]
    for block in blocks:
        ctypes.memset(block, 1, 1 << 20)
    for block in blocks:
        libc.free(block)
    assert memory.resident() > before + 150 * memory.MB
    give_back()
    assert memory.resident() < before + 64 * memory.MB
