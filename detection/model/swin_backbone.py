"""Backbones made of our Swin Transformer, for images of any size.

Images are padded with zeros at the bottom and the right to whole patches, as in the Swin paper's detection code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor

from detection.model.backbone_base import EXTRA_CHANNELS, MORE_EXTRA_CHANNELS, Backbone
from detection.model.layers import size_of
from detection.model.sections import STRIDES
from swin.config import SwinConfig
from swin.model import SwinBackbone, SwinFeatures, init_weights
from swin.patch import PatchExpanding, PatchMerging


class SwinMaps(Backbone):
    """Maps of a Swin's stages, and extra maps."""

    def __init__(self, body: SwinBackbone, channels: Sequence[int], extra_channels: Sequence[int]) -> None:
        super().__init__(body, channels, extra_channels, LayerNorm2d)
        self.patch_size = body.config.patch_size

    def body_maps(self, images: Tensor) -> list[Tensor]:
        return self.body(whole_patches(images, self.patch_size))


def swin_pyramid(config: SwinConfig) -> SwinMaps:
    """Builds the normalised maps of the stages at strides 8, 16 and 32, as dense tasks use them, and three extra maps.

    For Swin-T 192, 384, 768, 512, 256 and 256 channels.
    """
    body = SwinFeatures(config, [config.strides.index(stride) for stride in STRIDES])
    return SwinMaps(body, body.channels, EXTRA_CHANNELS)


def swin_a(config: SwinConfig) -> SwinMaps:
    """Builds what the first three stages pass on, merged, and three extra maps; the stages behind them are left out.

    For Swin-T 192, 384, 768, 512, 256 and 256 channels; 42, 21, 11, 6, 3 and 1 cells a side for 336 pixels.
    """
    return SwinMaps(MergedStages(config, num_stages=3), [2 * dim for dim in config.dims[:3]], EXTRA_CHANNELS)


class SwinB(SwinMaps):
    """The third stage's normalised map, expanded to twice its size and half its channels, and five extra maps.

    For Swin-T 192, 512, 512, 256, 256 and 256 channels; 42, 21, 11, 6, 3 and 1 cells a side for 336 pixels.
    """

    def __init__(self, config: SwinConfig) -> None:
        dim = config.dims[2]
        super().__init__(SwinFeatures(config, (2,)), (dim // 2,), MORE_EXTRA_CHANNELS)
        self.expand = PatchExpanding(dim).apply(init_weights)

    def body_maps(self, images: Tensor) -> list[Tensor]:
        (x,) = super().body_maps(images)
        # The merging before the third stage added a row or column to odd sides.
        rows, columns = (-(-side // (2 * self.patch_size)) for side in size_of(images))
        return [self.expand(x.permute(0, 2, 3, 1))[:, :rows, :columns].permute(0, 3, 1, 2)]


class MergedStages(SwinBackbone):
    """The merged map of each of the first ``num_stages`` stages: (B, 3, H, W) -> a list of (B, 2 C, h, w)."""

    def __init__(self, config: SwinConfig, num_stages: int) -> None:
        super().__init__(config, num_stages)
        self.layers[-1].downsample = PatchMerging(config.dims[num_stages - 1])
        self.apply(init_weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [y.permute(0, 3, 1, 2) for y in self.stages(x, merged=True)]


def whole_patches(images: Tensor, patch: int) -> Tensor:
    """Pads (B, 3, H, W) with zeros to multiples of ``patch``."""
    height, width = size_of(images)
    if height % patch == 0 and width % patch == 0:
        return images
    return F.pad(images, (0, -width % patch, 0, -height % patch))


SWIN_LAYOUTS: dict[str, Callable[[SwinConfig], SwinMaps]] = {"a": swin_a, "b": SwinB, "pyramid": swin_pyramid}
