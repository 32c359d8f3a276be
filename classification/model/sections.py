"""The `model` section: which classifier is trained, and with which head."""

from dataclasses import replace
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from engine.config.model_names import check_timm, unknown_model
from engine.config.section import Count, Fraction, Section, Size, Variants, may_import
from engine.model.swin_shape import SwinShapeConfig
from swin.config import SHAPES, SwinConfig

SWIN_SHAPES = {**SHAPES, "swin": SHAPES["swin_tiny"]}
"""What each of our model names starts from."""


class HeadConfig(Section):
    """A hidden layer before the classes: dropout, linear layer, activation, batch norm, dropout, linear layer."""

    hidden: Size
    """Width of the hidden layer."""
    dropout: Fraction = 0.0
    """Dropout of the backbone's features."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """What follows the hidden layer."""
    batch_norm: bool = False
    """Batch norm after the activation."""
    hidden_dropout: Fraction = 0.0
    """Dropout of the hidden layer's output."""


class CommonModel(Section):
    """What all models have in common."""

    name: str
    """What is trained."""
    drop_path: Fraction | None = None
    """Stochastic depth: probability of dropping the last block's branches; null: the model's own."""
    drop_rate: Fraction = 0.0
    """Dropout before the classifier."""
    head: HeadConfig | None = None
    """Layers of one's own in place of the classifier, on any model; null: the model's own single layer."""
    max_parameters: Count | None = None
    """Refuse a model of more parameters than this; null: any."""

    @property
    def timm_name(self) -> str | None:
        """Returns timm's name of the model; None for others."""
        return None

    @property
    def published_name(self) -> str | None:
        """Returns the name under which mean, deviation and filter are published; None for ours."""
        return self.timm_name

    @model_validator(mode="after")
    def _drops_once(self) -> "CommonModel":
        if self.head is not None and self.head.dropout and self.drop_rate:
            raise ValueError("give `head.dropout` or `drop_rate`, not both: they are at the same place")
        return self


class SwinModel(SwinShapeConfig, CommonModel):
    """A Swin Transformer of our own."""

    name: Literal["swin_tiny", "swin_small", "swin_base", "swin_large", "swin"]
    """swin_tiny, swin_small, swin_base, swin_large; or swin for a shape of one's own."""

    def swin_shape(self) -> SwinConfig:
        """Returns the shape. A ``ValueError`` names fields that do not fit together."""
        return replace(SWIN_SHAPES[self.name], **self.given)

    @model_validator(mode="after")
    def _fits_together(self) -> "SwinModel":
        missing = [key for key in ("embed_dim", "depths", "num_heads") if key not in self.given]
        if self.name == "swin" and missing:
            raise ValueError(f"name: swin, a shape of one's own, also needs {' and '.join(missing)}")
        self.swin_shape()  # checks itself
        return self


class KerasModel(CommonModel):
    """A model of keras.applications, equal to it layer by layer."""

    name: Literal["keras/EfficientNetB0", "keras/MobileNetV3Large", "keras/InceptionV3", "keras/ResNet50"]
    """keras/EfficientNetB0, keras/MobileNetV3Large, keras/InceptionV3 or keras/ResNet50."""

    @property
    def published_name(self) -> str:
        return self.name


class TimmModel(CommonModel):
    """Any of timm's models."""

    name: Annotated[str, Field(examples=["timm/NAME"], json_schema_extra={"pattern": "^timm/"})]
    """timm/NAME."""

    @property
    def timm_name(self) -> str:
        """Returns timm's name of the model."""
        return self.name.removeprefix("timm/")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if not name.startswith("timm/"):
            raise ValueError(unknown_model(name, own_names()))
        if may_import(info):
            check_timm(name.removeprefix("timm/"), own_names())
        return name


ModelConfig = Annotated[SwinModel | KerasModel | TimmModel, Variants("name")]


def own_names() -> list[str]:
    """Returns the names of the models that go without ``timm/``."""
    models = get_args(get_args(ModelConfig)[0])
    return [name for model in models for name in get_args(model.model_fields["name"].annotation)]
