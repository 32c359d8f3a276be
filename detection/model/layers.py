"""Small layers that backbones and necks share. B images, C channels, H and W a map's size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]
"""Height and width of a map."""


def size_of(x: Tensor) -> Size:
    """Returns height and width of (B, C, H, W)."""
    return x.shape[-2], x.shape[-1]


class L2Norm(nn.Module):
    """Divides each cell's channels by their 2-norm and multiplies them by learned factors (Liu et al., "ParseNet",
    2015, section 3.2), which start at ``factor``: (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, factor: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), factor))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.weight[:, None, None]


class HalvingConv(nn.Conv2d):
    """A 3x3 convolution of stride 2 whose padding follows from the size that its output is to have."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=2, bias=bias)

    def forward(self, x: Tensor, size: Size | None = None) -> Tensor:
        """Convolves: (B, in, H, W) -> (B, out, h, w).

        A side of n cells becomes ceil(n / 2) with padding, or floor((n - 1) / 2) without where ``size`` asks for that.
        """
        padding = [1, 1]
        if size is not None:
            padding = [int(side != (n - 1) // 2) for n, side in zip(size_of(x), size, strict=True)]
        weight = self.weight
        # Where one cell lies in its padding, only the middle of the kernel counts. Left with the whole of it, oneDNN
        # (3.12, bf16 on CPUs) returns whatever lies in memory for the gradient of the rest.
        for axis, cells in enumerate(size_of(x)):
            if cells == 1 and padding[axis]:
                weight, padding[axis] = weight.narrow(2 + axis, 1, 1), 0
        return F.conv2d(x, weight, self.bias, stride=2, padding=padding)


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that falls back on its running statistics where a batch gives it one value a channel.

    That is a map of one cell in a batch of one image, which has no variance; torch raises an error there.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def init_convolutions(module: nn.Module) -> None:
    """Draws the weights of every convolution from Xavier's uniform distribution; biases are 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
