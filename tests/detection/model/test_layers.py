"""The small layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detection.model.layers import BatchNorm, HalvingConv, L2Norm


def test_l2_norm_makes_every_cell_as_long_as_its_factor() -> None:
    layer = L2Norm(8)
    y = layer(torch.randn(2, 8, 3, 4) * 50)
    torch.testing.assert_close(y.norm(dim=1), torch.full((2, 3, 4), 20.0))
    nn.init.constant_(layer.weight, 3.0)
    torch.testing.assert_close(layer(torch.randn(2, 8, 3, 4)).norm(dim=1), torch.full((2, 3, 4), 3.0))
    assert layer(torch.zeros(1, 8, 2, 2)).eq(0).all()
    assert layer.weight.requires_grad and layer.weight.ndim == 1


@pytest.mark.parametrize(
    ("before", "size", "after"),
    [((38, 75), None, (19, 38)), ((3, 3), (1, 1), (1, 1)), ((5, 7), (2, 4), (2, 4)), ((1, 2), (1, 1), (1, 1))],
)
def test_halving(before: tuple[int, int], size: tuple[int, int] | None, after: tuple[int, int]) -> None:
    assert HalvingConv(3, 4)(torch.randn(2, 3, *before), size).shape == (2, 4, *after)


def test_halving_equals_torchs_convolution() -> None:
    layer, x = HalvingConv(3, 4), torch.randn(1, 3, 7, 7)
    for padding, size in ((1, (4, 4)), (0, (3, 3))):
        expected = nn.functional.conv2d(x, layer.weight, layer.bias, stride=2, padding=padding)
        assert torch.equal(layer(x, size), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1)])
def test_halving_of_a_single_cell_has_the_gradient_of_torchs_convolution(
    size: tuple[int, int], dtype: torch.dtype
) -> None:
    layer, x = HalvingConv(32, 64), torch.randn(8, 32, *size)
    weight = layer.weight.detach().clone().requires_grad_()
    expected = nn.functional.conv2d(x, weight, layer.bias, stride=2, padding=1)
    expected.square().sum().backward()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        y = layer(x)
    y.float().square().sum().backward()
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(y.float(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=tolerance, atol=tolerance * 4)


def test_batch_norm_of_a_single_value_uses_what_it_has_seen() -> None:
    layer, reference = BatchNorm(4), nn.BatchNorm2d(4)
    x = torch.randn(3, 4, 2, 2)
    assert torch.equal(layer(x), reference(x))
    single = torch.randn(1, 4, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        reference(single)
    y = layer(single)
    assert torch.equal(layer.running_mean, reference.running_mean)
    assert torch.equal(y, reference.eval()(single))
    y.sum().backward()
    assert layer.weight.grad is not None
