"""Attention: both ways compute what the formula says, and both give its gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from swin import attention
from swin.attention import ComposedAttention, WindowAttention, attend, fused_attention
from swin.windows import make_grid, shift_mask
from tests.swin.formula import by_formula


@pytest.mark.parametrize("way", [ComposedAttention.apply, fused_attention, attend])
@pytest.mark.parametrize("shifted", [False, True])
def test_values_and_gradients_are_those_of_the_formula(way: Callable[..., Tensor], shifted: bool) -> None:
    torch.manual_seed(0)
    mask = shift_mask(make_grid(8, 12, (4, 4), shifted), torch.device("cpu"))
    qkv = torch.randn(12, 16, 3, 2, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, 16, 16, dtype=torch.float64, requires_grad=True)
    mask = None if mask is None else mask.double()
    out, expected = way(qkv, bias, mask), by_formula(qkv, bias, mask)
    assert torch.allclose(out, expected, atol=1e-12)
    weights = torch.randn_like(expected)
    found = torch.autograd.grad((out * weights).sum(), (qkv, bias))
    wanted = torch.autograd.grad((expected * weights).sum(), (qkv, bias))
    for gradient, other in zip(found, wanted, strict=True):
        assert torch.allclose(gradient, other, atol=1e-12)


def test_masked_tokens_get_no_weight_at_all() -> None:
    """Not even a denormal number, which would be slow to compute with."""
    mask = shift_mask(make_grid(4, 4, (2, 2), shifted=True), torch.device("cpu"))
    assert mask is not None
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        weights = (mask + 50 * torch.randn_like(mask)).to(dtype).softmax(-1)
        assert (weights[mask != 0] == 0).all()
        assert weights.isfinite().all()


def test_training_composes_and_everything_else_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []

    def counted(qkv: Tensor, bias: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        calls.append(dropout)
        return fused_attention(qkv, bias, mask, dropout)

    monkeypatch.setattr(attention, "fused_attention", counted)
    module = WindowAttention(8, 2, (2, 2), attn_drop=0.25)
    x = torch.randn(3, 4, 8)
    module.eval()(x)
    assert calls == []  # evaluated, but with gradients wanted
    with torch.no_grad():
        module(x)
    assert calls == [0.0]
    module.train()(x).sum().backward()
    assert calls == [0.0, 0.25]
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_frozen_weights_below_learning_ones_get_gradients_through() -> None:
    module = WindowAttention(8, 2, (2, 2)).requires_grad_(False)
    x = torch.randn(3, 4, 8, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    module.relative_position_bias_table.requires_grad_(True)
    module(torch.randn(3, 4, 8)).square().sum().backward()
    gradient = module.relative_position_bias_table.grad
    assert gradient is not None and gradient.abs().sum() > 0
