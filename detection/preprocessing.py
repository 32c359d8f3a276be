"""What a picture goes through before the model whether it is trained or not, worked out from data and backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from detection.data.sections import CommonData
from detection.model.sections import DetectorConfig

Channels = tuple[float, float, float]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Size and value range that the model expects; pictures are stretched to the size."""

    height: int
    width: int
    interpolation: str
    """nearest, bilinear, bicubic or lanczos."""
    mean: Channels
    """Subtracted from red, green and blue in [0, 1]."""
    std: Channels
    """Divided by, after that."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


def resolve_preprocessing(data: CommonData, detector: DetectorConfig) -> Preprocessing:
    """Fills in what the configuration leaves to ``auto``: what timm publishes for the backbone, else ImageNet's."""
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if detector.timm_name is not None:
        from timm.models import get_pretrained_cfg

        published = get_pretrained_cfg(detector.timm_name)
        if published is not None:
            mean, std = cast(Channels, published.mean), cast(Channels, published.std)
    return Preprocessing(
        *data.size,
        data.interpolation,
        mean if data.mean == "auto" else data.mean,
        std if data.std == "auto" else data.std,
    )
