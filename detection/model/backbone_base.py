"""What all backbones have in common: maps of a body, and extra maps that go on from its last to ever coarser ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from detection.model.layers import HalvingConv, size_of

EXTRA_CHANNELS = (512, 256, 256)
"""Of the maps behind three of the body."""
MORE_EXTRA_CHANNELS = (512, 512, 256, 256, 256)
"""Of the maps behind one."""


class Backbone(nn.Module):
    """(B, 3, H, W) -> six maps (B, C, h, w), the finest first.

    ``body`` is the part that classifiers have too, so its weights are found under ``body.``.

    Args:
        channels: Channels of the maps that :meth:`body_maps` returns.
        extra_channels, norm: Of the maps behind them, see :class:`ExtraMaps`.
    """

    def __init__(
        self,
        body: nn.Module,
        channels: Sequence[int],
        extra_channels: Sequence[int],
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.body = body
        self.extras = ExtraMaps(channels[-1], extra_channels, norm)
        self.channels = (*channels, *extra_channels)

    def body_maps(self, images: Tensor) -> list[Tensor]:
        """Computes the maps of the body: (B, 3, H, W) -> (B, C, h, w) each."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.body_maps(images)
        return [*maps, *self.extras(maps[-1])]


class ExtraMaps(nn.Module):
    """Maps that each halve the one before: (B, C, h, w) -> a list of (B, C', ceil(h / 2), ceil(w / 2)), …

    As in section 2.1 of the SSD paper each is a 1x1 convolution to half its channels and a 3x3 convolution of stride 2.
    The last is not padded along sides of three cells or more, so that three become one: 38 cells of an image of 300
    pixels are followed by 19, 10, 5, 3 and 1. ``norm`` makes the layer behind each convolution, given its channels.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        inputs = [in_channels, *channels[:-1]]
        self.narrow = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after // 2, 1, bias=False), norm(after // 2), nn.ReLU(inplace=True))
            for before, after in zip(inputs, channels, strict=True)
        )
        self.halve = nn.ModuleList(HalvingConv(after // 2, after, bias=False) for after in channels)
        self.norm = nn.ModuleList(norm(after) for after in channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index, (narrow, halve, norm) in enumerate(zip(self.narrow, self.halve, self.norm, strict=True)):
            last = index + 1 == len(self.halve)
            rows, columns = size_of(x)
            size = (max((rows - 1) // 2, 1), max((columns - 1) // 2, 1)) if last else None
            x = F.relu(norm(halve(narrow(x), size)))
            maps.append(x)
        return maps
