"""The Swin Transformer block: window attention and MLP, each behind a LayerNorm and beside a shortcut (equation 3)."""

from __future__ import annotations

from torch import Tensor, nn

from swin.attention import WindowAttention
from swin.windows import Grid, merge, partition


def drop_path(branch: Tensor, probability: float) -> Tensor:
    """Stochastic depth (Huang et al., 2016): drops the branch of whole pictures, scales the others up to keep the mean.

    Args:
        branch: (B, ...); each picture is dropped by itself.
        probability: Of dropping, in [0, 1). Drawn from torch's global generator.
    """
    keep = branch.new_empty((len(branch),) + (1,) * (branch.dim() - 1)).bernoulli_(1 - probability)
    return branch * keep.div_(1 - probability)


class Mlp(nn.Module):
    """Two linear layers with a GELU between, applied to each token: (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class SwinBlock(nn.Module):
    """One block on a map (B, H, W, C). Every second block of a stage gets a shifted grid.

    Args:
        dim: Channels C.
        num_heads: Attention heads.
        window: Height and width of a window.
        mlp_ratio: Hidden channels of the MLP per channel.
        qkv_bias: Whether q, k and v have a bias.
        proj_drop: Dropout of both branches' projections.
        attn_drop: Dropout of attention weights.
        drop_path: Probability that a picture skips a branch; attention and MLP are drawn separately.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, int],
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window, qkv_bias, attn_drop, proj_drop)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), proj_drop)

    def forward(self, x: Tensor, grid: Grid, mask: Tensor | None = None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); `mask` is (M, N, N) where the grid is shifted."""
        windows = self.attn(partition(self.norm1(x), grid), mask)
        x = self._add(x, merge(windows, grid))
        return self._add(x, self.mlp(self.norm2(x)))

    def _add(self, x: Tensor, branch: Tensor) -> Tensor:
        """The shortcut, with the branch left out for some pictures while training."""
        if self.training and self.drop_path > 0:
            branch = drop_path(branch, self.drop_path)
        return x + branch

    def extra_repr(self) -> str:
        return f"drop_path={self.drop_path:.4f}"
