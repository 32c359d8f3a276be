"""The blocks of a Swin Transformer, modulated by time and class: adaptive LayerNorm with gates that start at zero
(Peebles and Xie, "Scalable Diffusion Models with Transformers", ICCV 2023, section 3.2).

Letters in shapes: B images, H and W the map, C channels, K channels of the condition.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swin.attention import WindowAttention
from swin.block import Mlp
from swin.windows import Grid, make_grid, merge, partition, shift_mask


class Modulation(nn.Module):
    """Linear maps of the condition, zero at first: (B, K) -> `count` maps (B, 1, 1, C)."""

    def __init__(self, condition: int, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(condition, count * dim)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, K) to `count` times (B, 1, 1, C)."""
        return self.linear(condition)[:, None, None].chunk(self.count, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scales by 1 + scale, then shifts: (B, H, W, C) by (B, 1, 1, C) each."""
    return x * (1 + scale) + shift


class ConditionedBlock(nn.Module):
    """A :class:`swin.block.SwinBlock` whose branches are shifted, scaled and gated by a condition.

    What the two have in common has the same names, so that a classifier's weights fit. With gates of zero, as at first,
    the block changes nothing.

    Args:
        dim: Channels C.
        num_heads: Attention heads.
        window: Height and width of a window.
        condition: Channels K of the condition.
        mlp_ratio: Hidden channels of the MLP per channel.
        qkv_bias: Whether q, k and v have a bias.
        proj_drop: Dropout of both branches' projections.
        attn_drop: Dropout of attention weights.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, int],
        condition: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window, qkv_bias, attn_drop, proj_drop)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), proj_drop)
        self.modulation = Modulation(condition, dim, 6)

    def forward(self, x: Tensor, condition: Tensor, grid: Grid, mask: Tensor | None = None) -> Tensor:
        """Maps (B, H, W, C) to (B, H, W, C).

        Args:
            x: The map.
            condition: (B, K).
            grid: How the map is cut into windows.
            mask: (M, N, N) where the grid is shifted.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)
        windows = self.attn(partition(modulate(self.norm1(x), shift1, scale1), grid), mask)
        x = x + gate1 * merge(windows, grid)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


def run_blocks(
    blocks: nn.ModuleList, x: Tensor, condition: Tensor, window: tuple[int, int], recompute: bool = False
) -> Tensor:
    """Runs blocks of one resolution, alternately with regular and shifted windows: (B, H, W, C) -> (B, H, W, C).

    Args:
        blocks: Instances of :class:`ConditionedBlock`.
        x: The map.
        condition: (B, K).
        window: Height and width of a window.
        recompute: Keeps only each block's input for the backward pass and runs the block again there.
    """
    _, height, width, _ = x.shape
    regular = make_grid(height, width, window, shifted=False)
    shifted = make_grid(height, width, window, shifted=True)
    mask = shift_mask(shifted, x.device)
    for index, block in enumerate(blocks):
        args = (x, condition, shifted, mask) if index % 2 else (x, condition, regular, None)
        x = checkpoint(block, *args, use_reentrant=False) if recompute else block(*args)
    return x
