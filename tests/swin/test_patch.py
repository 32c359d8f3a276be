"""Expanding: what becomes of one cell, and that it is merging turned round."""

from __future__ import annotations

import torch

from swin.patch import PatchExpanding


def test_a_cell_becomes_four_neighbours_row_by_row() -> None:
    layer = PatchExpanding(8)
    x = torch.randn(2, 3, 5, 8)
    y = layer(x)
    assert y.shape == (2, 6, 10, 4)
    four = layer.norm(layer.expand(x[1, 2, 3]).view(2, 2, 4))
    torch.testing.assert_close(y[1, 4:6, 6:8], four)


def test_expanded_maps_are_normalised_and_train() -> None:
    layer = PatchExpanding(16)
    y = layer(torch.randn(2, 4, 4, 16) * 9)
    torch.testing.assert_close(y.mean(-1), torch.zeros(2, 8, 8), atol=1e-5, rtol=0)
    (y * torch.randn_like(y)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
