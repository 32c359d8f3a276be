"""Window attention with relative position bias (sections 3.1 and 3.2 of the paper).

Letters in shapes: B images of M windows of N tokens, C channels, h heads of d channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from swin.windows import being_recorded, relative_position_index


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows: softmax(q k^T / sqrt(d) + bias) v.

    Args:
        dim: Channels C.
        num_heads: Heads h, each of d = C / h channels.
        window: Height and width of a window, N tokens in all.
        qkv_bias: Whether q, k and v have an additive bias.
        attn_drop: Dropout of the attention weights.
        proj_drop: Dropout of the output.
    """

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, int],
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.attn_drop = attn_drop
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(offsets, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attends within each window.

        Args:
            x: (B * M, N, C), the M windows of each of B images.
            mask: (M, N, N) added to the scores of each window, or None.

        Returns:
            (B * M, N, C).
        """
        windows, tokens, channels = x.shape
        qkv = self.qkv(x).view(windows, tokens, 3, self.num_heads, channels // self.num_heads)
        x = attend(qkv, self.position_bias(), mask, self.attn_drop if self.training else 0.0)
        return self.proj_drop(self.proj(x.reshape(windows, tokens, channels)))

    def position_bias(self) -> Tensor:
        """Returns the learned bias of each pair of tokens: (h, N, N)."""
        return F.embedding(self.relative_position_index, self.relative_position_bias_table).permute(2, 0, 1)

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, window={self.window}, attn_drop={self.attn_drop}"


def attend(qkv: Tensor, bias: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Computes softmax(q k^T / sqrt(d) + bias + mask) v in each window.

    ``scaled_dot_product_attention`` does it, but for training on CPU: there it has no kernel for a bias that is learned
    and falls back to single operations, so that the few that are needed are faster by hand.

    Args:
        qkv: (B * M, N, 3, h, d).
        bias: (h, N, N).
        mask: (M, N, N) or None.
        dropout: Share of the attention weights that is dropped.

    Returns:
        (B * M, N, h, d).
    """
    learns = torch.is_grad_enabled() and (qkv.requires_grad or bias.requires_grad)
    if qkv.device.type == "cpu" and learns and not dropout and not being_recorded():
        return ComposedAttention.apply(qkv, bias, mask)
    return fused_attention(qkv, bias, mask, dropout)


def fused_attention(qkv: Tensor, bias: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Computes :func:`attend` by ``scaled_dot_product_attention``."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    if mask is None:
        scores = bias[None].to(q.dtype)
    else:
        scores = (bias + mask[:, None]).to(q.dtype).expand(q.shape[0] // mask.shape[0], -1, -1, -1, -1).flatten(0, 1)
    return F.scaled_dot_product_attention(q, k, v, scores, dropout).transpose(1, 2)


class ComposedAttention(Function):
    """:func:`attend` with every large tensor written once: products accumulate in place, gradients share one buffer."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        windows, tokens, _, heads, channels = qkv.shape
        by_head = qkv.permute(2, 0, 3, 1, 4).reshape(3, windows * heads, tokens, channels)
        q, k, v = by_head
        scores = bias if mask is None else bias + mask[:, None]
        weights = qkv.new_empty(windows * heads, tokens, tokens)
        weights.view(-1, *scores.shape).copy_(scores)
        weights = weights.baddbmm_(q, k.mT, alpha=channels**-0.5).softmax(-1)
        out = weights @ v
        ctx.save_for_backward(by_head, weights, out)
        ctx.heads, ctx.bias_dtype = heads, bias.dtype
        return out.view(windows, heads, tokens, channels).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved, weights, out = ctx.saved_tensors  # once: recomputed activations can be taken only once
        q, k, v = saved
        windows, tokens, heads, channels = grad.shape
        grad = grad.transpose(1, 2).reshape(out.shape)
        # The gradient of a softmax p = softmax(s) is p * (dp - sum(dp * p)), and the sum equals sum(grad * out).
        inner = (grad * out).sum(-1, keepdim=True)
        scores = torch.baddbmm(inner, grad, v.mT, beta=-1).mul_(weights)
        by_head = torch.empty_like(saved)
        torch.baddbmm(by_head[0], scores, k, beta=0, alpha=channels**-0.5, out=by_head[0])
        torch.baddbmm(by_head[1], scores.mT, q, beta=0, alpha=channels**-0.5, out=by_head[1])
        torch.bmm(weights.mT, grad, out=by_head[2])
        bias = scores.view(windows, heads, tokens, tokens).sum(0, dtype=ctx.bias_dtype)
        return by_head.view(3, windows, heads, tokens, channels).permute(1, 3, 0, 2, 4), bias, None
