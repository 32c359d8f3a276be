"""Peak memory: of the process on a CPU, of tensors since the last look on a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from engine.devices.peak_memory import take_peak_gb
from tests.distributed import ROOT

PROGRAM = """
import torch
from engine.devices.peak_memory import take_peak_gb
before = take_peak_gb(torch.device("cpu"))
torch.ones(2**29, dtype=torch.uint8).mul_(2)
print(before, take_peak_gb(torch.device("cpu")))
"""


def test_on_a_cpu_it_is_the_processs_peak() -> None:
    """Also where what was needed is free again, in a process that has never needed as much before."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(float, ended.stdout.split())
    assert 0.05 < before < after - 0.4 < 100


def test_on_a_gpu_it_begins_anew_with_each_look_and_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: calls.append("read") or 3_000_000_000)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: calls.append("wait"))
    assert take_peak_gb(torch.device("cuda", 0)) == 3.0
    assert calls == ["read", "reset"]
