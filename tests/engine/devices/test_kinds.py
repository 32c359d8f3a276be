"""The table of devices, and numbers that are read late."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engine.commands.build import prepare_torch
from engine.config.training import TrainingConfig
from engine.devices import kinds
from engine.devices.kinds import DEVICES, DeviceNumbers, device_kind, wants_tf32
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks


@pytest.fixture
def torch_settings() -> Iterator[None]:
    """Puts back what the table sets for the whole process."""
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(before[0])
    cudnn.allow_tf32, cudnn.benchmark = before[1:]


def test_every_device_that_can_be_asked_for_has_a_row() -> None:
    for name, backend in (("cpu", "gloo"), ("cuda", "nccl")):
        assert device_kind(torch.device(name)) is DEVICES[name]
        assert DEVICES[name].backend == backend


@pytest.mark.parametrize(
    "tf32, deterministic, wanted",
    [("auto", False, True), ("auto", True, False), (True, True, True), (False, False, False)],
)
def test_tf32_is_on_unless_the_run_is_deterministic_or_says_otherwise(
    torch_settings: None, monkeypatch: pytest.MonkeyPatch, tf32: Any, deterministic: bool, wanted: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "own")
    config = TrainingConfig(tf32=tf32, deterministic=deterministic)
    assert wants_tf32(config) == wanted
    DEVICES["cuda"].set_up(config)
    assert torch.get_float32_matmul_precision() == ("high" if wanted else "highest")
    assert torch.backends.cudnn.allow_tf32 == wanted
    assert torch.backends.cudnn.benchmark == (not deterministic)


def test_a_run_makes_the_settings_of_its_device(torch_settings: None) -> None:
    torch.set_float32_matmul_precision("highest")
    prepare_torch(TrainingConfig(), 0, Ranks(Layout(), torch.device("cuda", 0)))
    assert torch.get_float32_matmul_precision() == "high"


def test_a_deterministic_run_has_torch_and_cublas_repeat_their_bits(
    torch_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    try:
        config = TrainingConfig(deterministic=True)
        prepare_torch(config, 0, Ranks(Layout(), torch.device("cuda", 0)))
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_run_on_a_cpu_leaves_the_settings_of_gpus_alone(torch_settings: None) -> None:
    torch.set_float32_matmul_precision("highest")
    DEVICES["cpu"].set_up(TrainingConfig())
    assert torch.get_float32_matmul_precision() == "highest"


def test_numbers_are_read_after_the_device_has_copied_them(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Event:
        def record(self, stream: str) -> None:
            events.append(f"recorded on {stream}")

        def synchronize(self) -> None:
            events.append("waited")

    class OnGpu:
        device = torch.device("cuda", 3)

        def to(self, device: str, non_blocking: bool) -> torch.Tensor:
            events.append(f"copy to {device}, non_blocking={non_blocking}")
            return torch.tensor([1.5, 2.5])

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    numbers = DeviceNumbers(OnGpu())  # type: ignore[arg-type]
    assert events == ["copy to cpu, non_blocking=True", "recorded on stream of cuda:3"]
    assert numbers.read() == [1.5, 2.5]
    assert events[-1] == "waited"


def test_numbers_on_a_cpu_are_there_at_once() -> None:
    assert DeviceNumbers(torch.tensor([1.0, float("inf")])).read() == [1.0, float("inf")]
    assert kinds._record_event(torch.device("cpu")) is None
