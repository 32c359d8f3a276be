"""The Swin Transformer block: window attention and MLP, each behind a LayerNorm and beside a shortcut (equation 3)."""

from __future__ import annotations

from torch import Tensor, nn

from swin.attention import WindowAttention
from swin.windows import Grid, merge, partition


def drop_path_factors(x: Tensor, probability: float) -> Tensor:
    """Returns what stochastic depth (Huang et al., 2016) multiplies a branch by: 0 drops it for a whole image, and
    for the others it is scaled up, to keep the mean.

    Args:
        x: (B, ...); only its length, type and device matter.
        probability: Of dropping, in [0, 1). Drawn from torch's global generator, for each image by itself.

    Returns:
        (B, 1, ...), of as many dimensions as ``x``.
    """
    return x.new_empty((len(x),) + (1,) * (x.dim() - 1)).bernoulli_(1 - probability).div_(1 - probability)


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
        drop_path: Probability that an image skips a branch; attention and MLP are drawn separately.

    Whoever runs the block draws with :meth:`draw` what is dropped, and hands it over: so the block computes nothing
    that depends on its own probability, and blocks of one shape share one piece of compiled code.
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

    def draw(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Draws factors of the two branches while training, (B, 1, 1, 1) each; None where nothing is dropped."""
        if not self.training or self.drop_path == 0:
            return None
        return drop_path_factors(x, self.drop_path), drop_path_factors(x, self.drop_path)

    def forward(
        self, x: Tensor, grid: Grid, mask: Tensor | None = None, factors: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Maps (B, H, W, C) to (B, H, W, C).

        Args:
            x: The map.
            grid: How it is cut into windows.
            mask: (M, N, N) where the grid is shifted.
            factors: What :meth:`draw` returns; None drops nothing.
        """
        attention, mlp = factors or (None, None)
        windows = self.attn(partition(self.norm1(x), grid), mask)
        x = _add(x, merge(windows, grid), attention)
        return _add(x, self.mlp(self.norm2(x)), mlp)

    def extra_repr(self) -> str:
        return f"drop_path={self.drop_path:.4f}"


def _add(x: Tensor, branch: Tensor, factors: Tensor | None) -> Tensor:
    """Adds the shortcut, and the branch beside it."""
    return x + branch if factors is None else x + branch * factors.to(branch.dtype)
