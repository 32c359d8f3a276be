"""The moving average against its closed form, and steps that the device leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from engine.config.training import EmaConfig
from engine.devices.averaging import lerp_one_by_one, lerp_together
from engine.devices.kinds import DEVICES
from engine.training import ema
from engine.training.ema import MovingAverage

MADE, SKIPPED = torch.tensor(0.0), torch.tensor(1.0)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def walk(network: nn.Module, step: int) -> None:
    """Changes all that a step changes."""
    with torch.no_grad():
        for index, tensor in enumerate(network.state_dict().values()):
            tensor.add_(1) if not tensor.is_floating_point() else tensor.add_(0.01 * (index + 1) * (step % 3 - 1))


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("chunk", [1, 100, 2**26])
def test_it_is_timms_average(monkeypatch: pytest.MonkeyPatch, warmup: bool, chunk: int) -> None:
    monkeypatch.setattr(ema, "_CHUNK_BYTES", chunk)
    network = model()
    ours, theirs = (
        MovingAverage(network, EmaConfig(decay=0.9, warmup=warmup)),
        ModelEmaV3(network, 0.9, use_warmup=warmup),
    )
    for step in range(1, 51):
        walk(network, step)
        ours.follow(step, MADE)
        theirs.update(network, step)
    for name, tensor in theirs.module.state_dict().items():
        torch.testing.assert_close(ours.module.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_after_fifty_steps_it_is_the_weighted_sum_of_all_weights() -> None:
    network, decay = model(), 0.8
    average = MovingAverage(network, EmaConfig(decay=decay, warmup=False))
    seen = []
    for step in range(1, 51):
        walk(network, step)
        average.follow(step, MADE)
        seen.append(network.get_parameter("0.weight").detach().double().clone())
    expected = decay**49 * seen[0] + sum((1 - decay) * decay ** (49 - i) * seen[i] for i in range(1, 50))
    torch.testing.assert_close(average.module.get_parameter("0.weight").double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lerp", [lerp_one_by_one, lerp_together])
def test_a_skipped_step_leaves_it_bit_for_bit(monkeypatch: pytest.MonkeyPatch, lerp: Any) -> None:
    monkeypatch.setitem(DEVICES, "cpu", replace(DEVICES["cpu"], lerp=lerp))
    network = model()
    average = MovingAverage(network, EmaConfig(decay=0.5, warmup=False))
    for step in (1, 2):
        walk(network, step)
        average.follow(step, MADE)
    before = {name: tensor.clone() for name, tensor in average.module.state_dict().items()}
    average.follow(3, SKIPPED)
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.module.state_dict().items())
    average.follow(3, MADE)
    assert not torch.equal(average.module.get_parameter("0.weight"), before["0.weight"])


def test_layouts_are_those_of_the_model() -> None:
    network = model().to(memory_format=torch.channels_last)
    average = MovingAverage(network, EmaConfig())
    average.follow(1, MADE)
    assert average.module.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
