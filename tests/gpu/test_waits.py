"""Waits are counted by place, and nothing else that torch warns of."""

from __future__ import annotations

import warnings

import pytest
import torch

from tests.gpu.waits import synchronisations


def test_what_torch_warns_of_as_synchronising_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with synchronisations("cuda") as places:
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)
    assert modes == ["warn", "default"]
    assert [(place.rpartition("/")[2].partition(":")[0], count) for place, count in places.items()] == [
        ("test_waits.py", 3)
    ]
