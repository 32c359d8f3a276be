"""Depthwise convolutions whose gradients are computed in fp32 under bf16 autocast on CPUs."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from engine.devices.depthwise import quicken_depthwise

LAYERS = {
    "stride": lambda: nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6, bias=False),
    "large": lambda: nn.Conv2d(6, 12, 5, padding=2, groups=6),
    "dilated": lambda: nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6),
    "same": lambda: Conv2dSame(6, 6, 3, stride=2, groups=6),
}
X = torch.randn(3, 6, 9, 8, generator=torch.Generator().manual_seed(1))


def gradients(layer: nn.Module, x: Tensor, **autocast: Any) -> tuple[Tensor, list[Tensor]]:
    """Output, and the gradients of input and parameters of a weighted sum of it."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", **autocast):
        y = layer(x)
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    return y, [*torch.autograd.grad((y.float() * weights).sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_are_those_of_bf16_and_gradients_closer_to_the_true_ones(name: str) -> None:
    torch.manual_seed(0)
    plain = LAYERS[name]()
    quick = deepcopy(plain)
    quicken_depthwise(quick)
    assert type(quick) is not type(plain) and isinstance(quick, type(plain))
    assert list(quick.state_dict()) == list(plain.state_dict())
    y, expected = gradients(plain, X, dtype=torch.bfloat16)
    found, got = gradients(quick, X, dtype=torch.bfloat16)
    _, true = gradients(plain, X, enabled=False)
    assert found.dtype == torch.bfloat16 and torch.equal(found, y)
    for a, b, c in zip(got, expected, true, strict=True):
        assert a.dtype == b.dtype == torch.float32
        scale = c.abs().max()
        assert (a - c).abs().max() < 0.02 * scale
        assert (a - c).norm() <= 1.05 * (b - c).norm()


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_changes_in_fp32_or_without_gradients(name: str) -> None:
    plain = LAYERS[name]()
    quick = deepcopy(plain)
    quicken_depthwise(quick)
    for a, b in zip(gradients(plain, X, enabled=False)[1], gradients(quick, X, enabled=False)[1], strict=True):
        assert torch.equal(a, b)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(plain(X), quick(X))


def test_only_the_slow_ones_are_replaced() -> None:
    others = [
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 6, 5, padding=2, groups=3),
        nn.Conv2d(6, 6, 5, padding=2),
        nn.Conv2d(1, 4, 5),
        nn.Conv2d(6, 6, 5, padding="same", groups=6),
        nn.Conv2d(6, 6, 5, padding=2, groups=6, padding_mode="reflect"),
    ]
    model = nn.Sequential(*others)
    quicken_depthwise(model)
    assert [type(layer) for layer in model] == [nn.Conv2d] * len(others)


def test_a_frozen_layer_passes_gradients_on_and_copies_work_alike() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 5, padding=2, groups=6)).requires_grad_(False)
    model[0].requires_grad_(True)
    quicken_depthwise(model)
    copied = deepcopy(model)
    for network in (model, copied):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = network(X[:, :3]).float().square().sum()
        loss.backward()
        assert network[1].weight.grad is None
    assert model[0].weight.grad is not None and torch.equal(model[0].weight.grad, copied[0].weight.grad)
