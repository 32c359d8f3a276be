"""The limit of the tests' own memory, and that they give back what they no longer need."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from engine.devices.allocator import keep_large_blocks
from tests import memory
from tests.distributed import ROOT


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


@pytest.mark.skipif(not memory.STATUS.exists(), reason="the memory that a process has had is read on Linux")
def test_the_peak_stays_when_the_memory_is_freed() -> None:
    code = (
        "from tests.memory import MB, peak; before = peak(); len(b'1' * (400 * MB)); print(before // MB, peak() // MB)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert before + 350 < after < before + 450


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
