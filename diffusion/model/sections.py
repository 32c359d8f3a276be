"""The `model` section: which Swin U-Net is trained."""

from dataclasses import replace
from typing import Literal

from pydantic import model_validator

from diffusion.model.config import SHAPES, TINY
from engine.config.section import Count, Fraction
from engine.model.swin_shape import SwinShapeConfig
from swin.config import SwinConfig


class SwinUNetConfig(SwinShapeConfig):
    """A Swin U-Net."""

    name: Literal["swin_unet_tiny", "swin_unet_small", "swin_unet_base", "swin_unet"]
    """swin_unet_tiny, swin_unet_small, swin_unet_base; or swin_unet for a shape of one's own. `depths` and `num_heads`
    are those of the way down, the last of which is the bottleneck; the way up has them too."""
    proj_drop: Fraction = 0.0
    """Dropout behind the projections of attention and MLP."""
    attn_drop: Fraction = 0.0
    """Dropout of attention weights."""
    max_parameters: Count | None = None
    """Refuse a network of more parameters than this; null: any."""

    def shape(self, size: tuple[int, int], channels: int, num_classes: int = 0) -> SwinConfig:
        """Returns the shape for images of a size. A ``ValueError`` names fields that do not fit together."""
        start = SHAPES.get(self.name, TINY)
        return replace(
            start,
            **self.given,
            proj_drop=self.proj_drop,
            attn_drop=self.attn_drop,
            img_size=size,
            in_chans=channels,
            num_classes=num_classes,
        )

    @model_validator(mode="after")
    def _fits_together(self) -> "SwinUNetConfig":
        missing = [key for key in ("embed_dim", "depths", "num_heads") if key not in self.given]
        if self.name == "swin_unet" and missing:
            raise ValueError(f"a swin_unet of one's own shape also needs {' and '.join(missing)}")
        self.shape((1 << 20, 1 << 20), 3)  # checks itself
        return self
