"""Which arithmetic a run computes in."""

from __future__ import annotations

import warnings

import pytest
import torch

from engine.devices.precision import Precision, computes_bf16, fp16_hint, resolve_precision
from tests.engine.toy import ToyTask, toy_config, toy_model, toy_trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_named_precision_is_what_it_says(name: str) -> None:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    precision = resolve_precision(name, CPU)
    assert precision == Precision(name, "cpu")
    assert precision.dtype == dtype
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with precision.autocast():
            assert torch.nn.Linear(4, 2)(torch.rand(3, 4)).dtype == dtype
    assert torch.nn.Linear(4, 2)(torch.rand(3, 4)).dtype == torch.float32
    assert precision.scaler().is_enabled() == (name == "fp16")


@pytest.mark.parametrize(
    "capabilities, name",
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
    ids=str,
)
def test_auto_on_cpu(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], name: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision("auto", CPU).name == name


def test_auto_under_a_torch_that_cannot_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_precision("auto", CPU).name == "fp32"


@pytest.mark.parametrize("capability, name", [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp32")])
def test_auto_on_gpus(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert computes_bf16(CUDA) == (name == "bf16")
    assert resolve_precision("auto", CUDA) == Precision(name, "cuda")


def test_a_scaled_loss_gives_the_same_gradient() -> None:
    """On the CPU; fp16's gradients are scaled by what `unscale_` takes back, the others' not at all."""
    for name, scale in (("fp32", 1.0), ("bf16", 1.0), ("fp16", 65536.0)):
        weight = torch.nn.Parameter(torch.tensor([2.0]))
        optimizer, scaler = torch.optim.SGD([weight], lr=1.0), resolve_precision(name, CPU).scaler()
        scaler.scale(3 * weight.sum()).backward()
        assert weight.grad is not None and weight.grad.item() == 3 * scale
        scaler.unscale_(optimizer)
        scaler.update()
        assert weight.grad.item() == 3.0


@pytest.mark.parametrize(
    "name, capability, hinted",
    [
        ("auto", (7, 0), True),
        ("auto", (7, 5), True),
        ("auto", (6, 1), False),
        ("auto", (8, 0), False),
        ("fp32", (7, 5), False),
    ],
)
def test_fp16_is_hinted_at_where_auto_is_slow(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], hinted: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    hint = fp16_hint(name, CUDA)
    assert bool(hint) == hinted
    assert not hinted or ("Tesla T4" in hint and "training.precision=fp16" in hint)
    assert not fp16_hint(name, CPU)


def test_a_trainer_gives_the_hint(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("engine.commands.build.fp16_hint", lambda name, device: f"{name} is slow on {device}")
    toy_trainer(ToyTask(toy_model()), toy_config(training={"precision": "auto"}))
    assert "auto is slow on cpu" in caplog.text
