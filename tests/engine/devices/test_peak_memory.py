"""Peak memory: of the process on a CPU, of tensors since the last look on a GPU."""

from __future__ import annotations

import pytest
import torch

from engine.devices.peak_memory import take_peak_gb


def test_on_a_cpu_it_is_the_processs_peak() -> None:
    before = take_peak_gb(torch.device("cpu"))
    torch.ones(2**28, dtype=torch.uint8).mul_(2)  # freed at once: a peak stays
    after = take_peak_gb(torch.device("cpu"))
    assert 0.05 < before <= after < 100
    assert after > 2**28 / 1e9


def test_on_a_gpu_it_begins_anew_with_each_look_and_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: calls.append("read") or 3_000_000_000)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append("reset"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: calls.append("wait"))
    assert take_peak_gb(torch.device("cuda", 0)) == 3.0
    assert calls == ["read", "reset"]
