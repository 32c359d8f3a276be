"""Backbones out of timm: ResNet-50 as SSD uses it, and any model that gives maps at strides 8, 16 and 32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from timm.layers import LayerNorm2d
from timm.layers.format import Format
from torch import Tensor, nn

from detection.model.backbone_base import EXTRA_CHANNELS, MORE_EXTRA_CHANNELS, Backbone
from detection.model.layers import BatchNorm, L2Norm
from detection.model.sections import STRIDES
from engine.errors import UserError
from engine.model.timm_weights import create_timm


class TimmBackbone(Backbone):
    """Maps of a timm model made with ``features_only``, each led through its module of ``behind``, and extra maps."""

    def __init__(
        self,
        body: nn.Module,
        extra_channels: Sequence[int],
        norm: Callable[[int], nn.Module],
        behind: Sequence[nn.Module],
    ) -> None:
        super().__init__(body, _channels(body), extra_channels, norm)
        self.behind = nn.ModuleList(behind)

    def body_maps(self, images: Tensor) -> list[Tensor]:
        maps = self.body(images)
        if getattr(self.body, "output_fmt", None) == Format.NHWC:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        return [layer(x) for layer, x in zip(self.behind, maps, strict=True)]


def resnet50_a(options: dict[str, Any]) -> TimmBackbone:
    """Builds C3, C4 and C5 of ResNet-50 (512, 1024, 2048 channels) and three extra maps; the first is L2-normalised.

    38, 19, 10, 5, 3 and 1 cells a side for images of 300 pixels.
    """
    body = _maps_of("resnet50", (2, 3, 4), options)
    return TimmBackbone(body, EXTRA_CHANNELS, BatchNorm, [L2Norm(512), nn.Identity(), nn.Identity()])


def resnet50_b(options: dict[str, Any]) -> TimmBackbone:
    """Builds ResNet-50 up to its third stage, which here does not halve the map (1024 channels), and five extra maps.

    38, 19, 10, 5, 3 and 1 cells a side for images of 300 pixels. (Huang et al., "Speed/accuracy trade-offs for modern
    convolutional object detectors", CVPR 2017, cut ResNets likewise for SSD.)
    """
    body = _maps_of("resnet50", (3,), options)
    for name, module in body.named_modules():
        if name.startswith("layer3.0.") and isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    return TimmBackbone(body, MORE_EXTRA_CHANNELS, BatchNorm, [nn.Identity()])


def timm_maps(name: str, image_size: tuple[int, int], options: dict[str, Any]) -> TimmBackbone:
    """Builds the last three maps of any timm model, at strides 8, 16 and 32, and three extra maps.

    All six are normalised by LayerNorm, cell by cell. Some models' maps have values in the tens, from which a new head
    would begin with losses in the hundreds; and batch norm, of maps of a few cells in the small batches of detection,
    learns statistics that single images then leave far behind.

    Raises:
        UserError: timm cannot make the model so, or it has other maps.
    """
    body = _maps_of(name, (-3, -2, -1), options, image_size)
    strides = body.feature_info.reduction()  # type: ignore[operator,union-attr]
    if tuple(strides) != STRIDES:
        needed = f"strides {strides}, but {list(STRIDES)} are needed"
        raise UserError(f"detection.backbone: the last maps of timm/{name} have {needed}")
    return TimmBackbone(body, EXTRA_CHANNELS, LayerNorm2d, [LayerNorm2d(channels) for channels in _channels(body)])


def _channels(body: nn.Module) -> list[int]:
    return body.feature_info.channels()  # type: ignore[operator,union-attr]


def _maps_of(
    name: str, indices: tuple[int, ...], options: dict[str, Any], image_size: tuple[int, int] | None = None
) -> nn.Module:
    """Builds timm's model of these maps, for this size if it is bound to one."""
    maps: dict[str, Any] = {"features_only": True, "out_indices": indices}
    return create_timm(name, "detection.backbone", image_size=image_size, **maps, **options)
