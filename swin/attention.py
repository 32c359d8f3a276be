"""Window attention with relative position bias (sections 3.1 and 3.2 of the paper)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin.windows import relative_position_index


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows of N tokens: softmax(q k^T / sqrt(d) + bias) v.

    Args:
        dim: Channels C.
        num_heads: Heads, each of d = C / num_heads channels.
        window: Height and width of a window, N in all.
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
            x: (B * M, N, C), the M windows of each of B pictures.
            mask: (M, N, N) added to the scores of each window, or None.

        Returns:
            (B * M, N, C).
        """
        windows, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(windows, tokens, 3, self.num_heads, channels // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.position_bias()[None]
        if mask is not None:
            bias = (bias + mask[:, None]).expand(windows // len(mask), -1, -1, -1, -1).flatten(0, 1)
        dropout = self.attn_drop if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), dropout_p=dropout)
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(windows, tokens, channels)))

    def position_bias(self) -> Tensor:
        """The learned bias of each pair of tokens: (heads, N, N)."""
        return F.embedding(self.relative_position_index, self.relative_position_bias_table).permute(2, 0, 1)

    def extra_repr(self) -> str:
        return f"heads={self.num_heads}, window={self.window}, attn_drop={self.attn_drop}"
