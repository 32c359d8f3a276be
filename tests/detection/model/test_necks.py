"""Necks: sizes, and their sums and concatenations against a calculation by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.model.necks import FPN, NECKS, PAN, DenseFPN, build_neck

CHANNELS = (4, 8, 6)
SIZES = ((9, 13), (5, 7), (2, 3))
"""Halved with padding, then without."""


@pytest.fixture
def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(CHANNELS, SIZES, strict=True)]


def up(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear")


@pytest.mark.parametrize("name", NECKS)
def test_sizes_are_kept(name: str, maps: list[Tensor]) -> None:
    neck = NECKS[name](CHANNELS, 5)
    before = [x.clone() for x in maps]
    found = neck(maps)
    assert [tuple(y.shape) for y in found] == [(2, c, *size) for c, size in zip(neck.channels, SIZES, strict=True)]
    assert neck.channels == (CHANNELS if name == "none" else (5, 5, 5))
    assert all(torch.equal(x, y) for x, y in zip(maps, before, strict=True))


def test_fpn(maps: list[Tensor]) -> None:
    neck = FPN(CHANNELS, 5)
    third = neck.lateral[2](maps[2])
    second = neck.lateral[1](maps[1]) + up(third, SIZES[1])
    first = neck.lateral[0](maps[0]) + up(second, SIZES[0])
    for y, smooth, x in zip(neck(maps), neck.smooth, (first, second, third), strict=True):
        torch.testing.assert_close(y, smooth(x))


def test_pan_goes_down_and_up_again(maps: list[Tensor]) -> None:
    neck = PAN(CHANNELS, 5)
    p1, p2, p3 = FPN.forward(neck, maps)
    weights = [(layer.weight, layer.bias) for layer in neck.down]
    n2 = p2 + F.conv2d(p1, *weights[0], stride=2, padding=1).relu()
    n3 = p3 + F.conv2d(n2, *weights[1], stride=2).relu()
    for ours, expected in zip(neck(maps), (p1, n2, n3), strict=True):
        torch.testing.assert_close(ours, expected)


def test_dense_fpn_sees_all_coarser_levels(maps: list[Tensor]) -> None:
    neck = DenseFPN(CHANNELS, 5)
    l1, l2, l3 = (lateral(x) for lateral, x in zip(neck.lateral, maps, strict=True))
    f3 = neck.fuse[2](l3).relu()
    f2 = neck.fuse[1](torch.cat([l2, up(f3, SIZES[1])], 1)).relu()
    f1 = neck.fuse[0](torch.cat([l1, up(f2, SIZES[0]), up(f3, SIZES[0])], 1)).relu()
    for ours, expected in zip(neck(maps), (f1, f2, f3), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", ["fpn", "pan", "dense_fpn"])
def test_convolutions_start_with_biases_of_zero(name: str) -> None:
    layers = [layer for layer in NECKS[name](CHANNELS, 5).modules() if isinstance(layer, nn.Conv2d)]
    assert layers and all(layer.bias is not None and layer.bias.eq(0).all() for layer in layers)
    assert all(layer.weight.std() > 0.05 for layer in layers)


@pytest.mark.parametrize("kind", ["fpn", "pan", "dense_fpn"])
def test_normed_maps_have_mean_0_and_variance_1_in_each_cell(kind: str, maps: list[Tensor]) -> None:
    neck = build_neck(kind, CHANNELS, 64, "layer")
    assert neck.channels == (64, 64, 64)
    for y, size in zip(neck(maps), SIZES, strict=True):
        assert y.shape == (2, 64, *size)
        assert y.mean(dim=1).abs().max() < 1e-5
        torch.testing.assert_close(y.var(dim=1, unbiased=False), torch.ones(2, *size), rtol=0, atol=1e-3)
    assert type(build_neck(kind, CHANNELS, 64, "none")) is NECKS[kind]
