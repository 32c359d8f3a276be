"""Where the map changes its resolution: patch embedding and patch merging (section 3.1 of the paper), and expanding."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Pixels to tokens: (B, in_chans, H, W) -> (B, H // patch, W // patch, dim).

    Pixels beyond the last whole patch are left out, as in torchvision (the paper's detection code pads instead).
    """

    def __init__(self, patch: int, in_chans: int, dim: int, norm: bool = True) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Halves the map and doubles the channels: (B, H, W, C) -> (B, H / 2, W / 2, 2 C), odd sides padded with zeros.

    The four neighbours are concatenated column by column (top left, bottom left, top right, bottom right), normalised
    and projected.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.reshape(-1, (height + 1) // 2, 2, (width + 1) // 2, 2, channels)
        return self.reduction(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class PatchExpanding(nn.Module):
    """Doubles the map and halves the channels: (B, H, W, C) -> (B, 2 H, 2 W, C / 2), normalised.

    Merging turned round, as in Cao et al., "Swin-Unet", 2021, section 3.4: a projection to 2 C channels, which become
    four neighbours row by row.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(dim // 2)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        x = self.expand(x).view(-1, height, width, 2, 2, channels // 2)
        return self.norm(x.transpose(2, 3).reshape(-1, 2 * height, 2 * width, channels // 2))
