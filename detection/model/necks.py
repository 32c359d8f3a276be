"""Necks: six maps to six maps that have seen each other. With any but ``none`` all have the same channels.

Maps are (B, C, h, w), the finest first, of any sizes that halve from one to the next. A neck is given the channels of
each, ``in_channels``, and those of all maps that it is to return, ``channels``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from detection.model.layers import HalvingConv, Size, init_convolutions, size_of


class NoNeck(nn.Module):
    """Passes the maps on, with their own channels."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.channels = tuple(in_channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return maps


class FPN(nn.Module):
    """Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, section 3.

    Each map is projected by a 1x1 convolution, the next coarser sum is added to it, and the sum smoothed by a 3x3
    convolution. The coarser sum is enlarged bilinearly.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.channels = (channels,) * len(in_channels)
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        init_convolutions(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        sums = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for index in reversed(range(len(sums) - 1)):
            sums[index] = sums[index] + enlarge(sums[index + 1], size_of(sums[index]))
        return [smooth(x) for smooth, x in zip(self.smooth, sums, strict=True)]


class PAN(FPN):
    """An FPN and a path back up: each map adds the one before it, halved by a 3x3 convolution of stride 2.

    Liu et al., "Path Aggregation Network for Instance Segmentation", CVPR 2018, section 3.1; as there, the convolutions
    of this path are followed by a ReLU.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__(in_channels, channels)
        self.down = nn.ModuleList(HalvingConv(channels, channels) for _ in in_channels[1:])
        init_convolutions(self.down)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fused = super().forward(maps)
        for index, down in enumerate(self.down, start=1):
            fused[index] = fused[index] + F.relu(down(fused[index - 1], size_of(fused[index])))
        return fused


class DenseFPN(nn.Module):
    """A top-down path in which each level sees all coarser ones and not their sum.

    From the coarsest level on, a level's own 1x1 projection and all coarser fused maps, enlarged bilinearly to its
    size, are concatenated and fused by a 3x3 convolution and a ReLU, without which the whole path would be linear.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        levels = len(in_channels)
        self.channels = (channels,) * levels
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.fuse = nn.ModuleList(nn.Conv2d(channels * seen, channels, 3, padding=1) for seen in range(levels, 0, -1))
        init_convolutions(self)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fused: list[Tensor] = []
        levels = zip(self.lateral, self.fuse, maps, strict=True)
        for lateral, fuse, x in reversed(list(levels)):
            own = lateral(x)
            coarser = [enlarge(y, size_of(own)) for y in fused]
            fused.insert(0, F.relu(fuse(torch.cat([own, *coarser], dim=1))))
        return fused


class NormedNeck(nn.Module):
    """A neck whose maps are normalised by LayerNorm, cell by cell, before the head reads them.

    The sums of a neck grow with its levels and with high rates of training; a head behind them then follows.

    Args:
        neck: Any but :class:`NoNeck`, whose maps a backbone normalises as it needs them.
    """

    def __init__(self, neck: FPN | DenseFPN) -> None:
        super().__init__()
        self.channels = neck.channels
        self.neck = neck
        self.norms = nn.ModuleList(LayerNorm2d(channels) for channels in neck.channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [norm(x) for norm, x in zip(self.norms, self.neck(maps), strict=True)]


Neck = NoNeck | FPN | DenseFPN
NECKS: dict[str, type[Neck]] = {"none": NoNeck, "fpn": FPN, "pan": PAN, "dense_fpn": DenseFPN}
"""The classes behind `detection.neck`."""


def build_neck(kind: str, in_channels: Sequence[int], channels: int, norm: str) -> Neck | NormedNeck:
    """Builds the neck of `detection.neck`, `neck_channels` and `neck_norm`, for maps of ``in_channels``."""
    neck = NECKS[kind](in_channels, channels)
    return NormedNeck(neck) if norm == "layer" and not isinstance(neck, NoNeck) else neck


def enlarge(x: Tensor, size: Size) -> Tensor:
    """Interpolates (B, C, h, w) bilinearly to ``size``."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
