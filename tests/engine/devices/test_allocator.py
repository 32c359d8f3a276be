"""The allocator setting: what it does to a process that uses large tensors, seen from outside."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from engine.devices.allocator import keep_large_blocks

ROOT = Path(__file__).resolve().parents[3]
ON_GLIBC = platform.libc_ver()[0] == "glibc"

COUNT_FAULTS = """
import resource, sys, torch
from engine.devices.allocator import keep_large_blocks
if sys.argv[1] == "keep":
    assert keep_large_blocks()
for step in range(20):
    if step == 10:  # the first ones have to touch their memory
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(size * 1_000_000) for size in (9, 10, 12, 11)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(setting: str) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS, setting]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not ON_GLIBC, reason="the setting is glibc's")
def test_large_tensors_reuse_their_memory() -> None:
    plain, kept = page_faults("plain"), page_faults("keep")
    assert plain > 500  # ten steps of 168 MB: 410,000 pages, or 800 where pages are huge
    assert kept < plain / 4


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherLibrary:
        """Has a mallopt, as musl's stub, and does not call itself glibc."""

        def __init__(self, name: None) -> None:
            pass

        def mallopt(self, parameter: int, value: int) -> int:
            raise AssertionError("not to be called")

    monkeypatch.setattr(ctypes, "CDLL", OtherLibrary)
    assert keep_large_blocks() is False


def test_a_system_without_a_c_library_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: None) -> None:
        raise TypeError("this system needs a name")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert keep_large_blocks() is False
