"""The `detection` section: backbone, neck and priors, what priors are matched with, and how the output is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from detection.boxes.sections import MatchingConfig, PostprocessConfig
from engine.config.model_names import check_timm, unknown_model
from engine.config.section import Fraction, OnlyWith, Positive, Section, Size, Variants, may_import
from engine.model.swin_shape import SwinShapeConfig
from swin.config import SHAPES, SwinConfig

Ratio = Annotated[float, Field(gt=1)]

STRIDES = (8, 16, 32)
"""Of the maps that a pyramid of features begins with."""
NUM_MAPS = 6
"""Maps of every backbone and neck, the finest first."""

SwinLayout = Literal["a", "b", "pyramid"]
"""Which maps of a Swin Transformer the backbone takes, see :mod:`detection.model.swin_backbone`."""

SwinName = Literal[
    "swin_a", "swin_b", "swin_tiny", "swin_tiny_a", "swin_tiny_b", "swin_small", "swin_small_a", "swin_small_b",
    "swin_base", "swin_base_a", "swin_base_b", "swin_large", "swin_large_a", "swin_large_b",
]  # fmt: skip
BACKBONES = ("resnet50_a", "resnet50_b", *get_args(SwinName))
"""The backbones that go by a name of our own."""

_NO_SWIN = {"not": {"enum": [*get_args(SwinName)]}}
NECKS = ("fpn", "pan", "dense_fpn")


class PriorsConfig(Section):
    """The default boxes of each map, the finest first (section 2.2 of the SSD paper)."""

    scales: Annotated[tuple[Positive, ...], Field(min_length=NUM_MAPS, max_length=NUM_MAPS)] = (
        0.1, 0.2, 0.375, 0.55, 0.725, 0.9,
    )  # fmt: skip
    """Side of each map's square, as a part of the image's (of the root of its area, where it is not square)."""
    scale_beyond: Positive = 1.0
    """What follows the last scale. Each map has a second square, of the geometric mean of its scale and the next."""
    ratios: Annotated[tuple[tuple[Ratio, ...], ...], Field(min_length=NUM_MAPS, max_length=NUM_MAPS)] = (
        (2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,),
    )  # fmt: skip
    """Width to height of each map's other boxes, of the square's area; each ratio is also taken upright (1 / ratio)."""
    clip: bool = True
    """Make no box wider or higher than the image."""

    @property
    def per_cell(self) -> tuple[int, ...]:
        """Boxes in each cell of each map."""
        return tuple(2 + 2 * len(ratios) for ratios in self.ratios)


class CommonDetector(Section):
    """What detectors of all backbones have in common."""

    backbone: str
    """What finds the maps."""
    neck: Literal["none", "fpn", "pan", "dense_fpn"] = "none"
    """What mixes the maps of different sizes."""
    neck_channels: Annotated[Size, OnlyWith(("neck",), NECKS)] = 256
    """Channels of each map behind a neck."""
    neck_norm: Annotated[Literal["none", "layer"], OnlyWith(("neck",), NECKS)] = "none"
    """Whether LayerNorm normalises the cells of each map behind a neck, which high rates need."""
    priors: PriorsConfig = PriorsConfig()
    """The default boxes."""
    drop_path: Fraction | None = None
    """Stochastic depth of the backbone: probability of dropping the last block's branches; null: the model's own."""
    matching: MatchingConfig = MatchingConfig()
    """Which priors have to find which objects."""
    postprocess: PostprocessConfig = PostprocessConfig()
    """How predictions become detections."""

    @property
    def timm_name(self) -> str | None:
        """timm's name of the backbone; None for our Swin."""
        return None


class TimmDetector(CommonDetector):
    """A detector on ResNet-50 or another model of timm."""

    backbone: Annotated[str, Field(examples=["resnet50_a", "resnet50_b", "timm/NAME"], json_schema_extra=_NO_SWIN)] = (
        "resnet50_b"
    )
    """resnet50_a, resnet50_b; or timm/NAME, any timm model with maps at strides 8, 16 and 32."""
    frozen_batchnorm: bool = False
    """Keep the batch norms of the backbone's own stages as its trained weights bring them: for small batches."""

    @property
    def timm_name(self) -> str:
        """timm's name of the backbone."""
        return self.backbone.removeprefix("timm/") if self.backbone not in BACKBONES else "resnet50"

    @field_validator("backbone")
    @classmethod
    def _known(cls, backbone: str, info: ValidationInfo) -> str:
        if backbone not in BACKBONES:
            if not backbone.startswith("timm/"):
                raise ValueError(unknown_model(backbone, BACKBONES))
            if may_import(info):
                check_timm(backbone.removeprefix("timm/"), BACKBONES)
        return backbone


class SwinDetector(CommonDetector):
    """A detector on one of our own Swin Transformers."""

    backbone: SwinName
    """swin_a, swin_b (of swin_tiny; swin_small_a, …); swin_tiny, swin_small, swin_base, swin_large."""
    swin: SwinShapeConfig = SwinShapeConfig()
    """Changes to the backbone's shape."""

    @property
    def layout(self) -> SwinLayout:
        """Which maps are taken, by the end of the name."""
        return "a" if self.backbone.endswith("_a") else "b" if self.backbone.endswith("_b") else "pyramid"

    def swin_shape(self) -> SwinConfig:
        """Returns the shape of the backbone. A ``ValueError`` names fields that do not fit together."""
        name = self.backbone.removesuffix("_a").removesuffix("_b")
        shape = SHAPES["swin_tiny" if name == "swin" else name]
        drop_path = shape.drop_path if self.drop_path is None else self.drop_path
        return replace(shape, **self.swin.given, drop_path=drop_path, num_classes=0)

    @model_validator(mode="after")
    def _has_stages(self) -> SwinDetector:
        try:
            shape = self.swin_shape()
        except ValueError as error:
            raise ValueError(f"swin: {error}") from None
        if self.layout == "pyramid" and not set(STRIDES) <= set(shape.strides):
            raise ValueError(
                f"swin: backbone {self.backbone} needs stages at strides 8, 16 and 32, not {list(shape.strides)}"
            )
        if self.layout != "pyramid" and len(shape.depths) < 3:
            raise ValueError(f"swin: backbone {self.backbone} needs three stages, not {len(shape.depths)}")
        return self


DetectorConfig = Annotated[TimmDetector | SwinDetector, Variants("backbone")]
