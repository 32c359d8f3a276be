"""What an image goes through before the model whether it is trained or not, worked out from data and model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from engine.images.sections import ImageData

Channels = tuple[float, float, float]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
HALF: Channels = (0.5, 0.5, 0.5)
OF_KERAS: dict[str, tuple[Channels, Channels]] = {
    "keras/EfficientNetB0": (IMAGENET_MEAN, IMAGENET_STD),
    "keras/MobileNetV3Large": (HALF, HALF),
    "keras/InceptionV3": (HALF, HALF),
    "keras/ResNet50": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),
}
"""Mean and deviation that keras.applications have for their weights."""


@dataclass(frozen=True)
class Preprocessing:
    """Size and value range that the model expects."""

    height: int
    width: int
    resize: str
    """crop, squash or pad."""
    crop_pct: float
    """Part of the shorter side that `crop` keeps."""
    interpolation: str
    """nearest, bilinear, bicubic or lanczos."""
    mean: Channels
    """Subtracted from red, green and blue in [0, 1]."""
    std: Channels
    """Divided by, after that."""
    pad_fill: Literal["mean", "edge"] | tuple[int, int, int] = "mean"
    """What `pad` fills bars with: the mean colour, the outermost pixels, or a colour in 0 to 255."""
    decode: Literal["fast", "exact"] = "exact"
    """See :attr:`engine.images.sections.ImageData.decode`; checkpoints that do not say it are of exact pixels."""

    @property
    def size(self) -> tuple[int, int]:
        """Returns height and width."""
        return self.height, self.width

    @property
    def fill(self) -> tuple[int, int, int]:
        """Returns the colour, 0 to 255, of what rotation and the like uncover: that of the bars, else the mean."""
        if isinstance(self.pad_fill, tuple):
            return self.pad_fill
        red, green, blue = (min(255, round(255 * channel)) for channel in self.mean)
        return red, green, blue


def resolve_preprocessing(
    data: ImageData,
    published_name: str | None,
    *,
    resize: str = "squash",
    crop_pct: float | Literal["auto"] = 1.0,
    pad_fill: Literal["mean", "edge"] | tuple[int, int, int] = "mean",
) -> Preprocessing:
    """Fills in what the configuration leaves to ``auto``: what is published for the model, else ImageNet's values.

    Args:
        published_name: timm's name of the model, or ``keras/NAME``; None: a model of ours.
    """
    mean, std, interpolation, crop = IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.875
    if published_name in OF_KERAS:
        mean, std = OF_KERAS[published_name]
        interpolation = "bilinear"
    elif published_name is not None:
        from timm.models import get_pretrained_cfg

        if (published := get_pretrained_cfg(published_name)) is not None:
            mean, std = cast(Channels, published.mean), cast(Channels, published.std)
            interpolation, crop = published.interpolation, published.crop_pct
    return Preprocessing(
        *data.size,
        resize,
        crop if crop_pct == "auto" else crop_pct,
        interpolation if data.interpolation == "auto" else data.interpolation,
        mean if data.mean == "auto" else data.mean,
        std if data.std == "auto" else data.std,
        pad_fill,
        data.decode,
    )
