"""The typed configuration of a classification run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from classification.augmentation.sections import UNCOVERING, AugmentationConfig
from classification.losses.sections import CrossEntropyConfig, LossConfig, loss_fault
from classification.metrics.names import measured
from classification.metrics.sections import ClassificationEvaluationConfig
from engine.config.model_names import check_published, check_timm, unknown_model
from engine.config.run import RunConfig
from engine.config.section import Section, Variants, may_import, refuse_unused
from engine.datasets.sections import DataConfig
from engine.model.swin_shape import SwinShapeConfig
from swin.config import SHAPES, SwinConfig

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]

SWIN_SHAPES = {**SHAPES, "swin": SHAPES["swin_tiny"]}
"""What each of our model names starts from."""


class HeadConfig(Section):
    """A hidden layer before the classes: dropout, linear layer, activation, batch norm, dropout, linear layer."""

    hidden: Count
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
        """Returns timm's name of the model; None for ours."""
        return None

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
            raise ValueError(f"a swin of one's own shape also needs {' and '.join(missing)}")
        self.swin_shape()  # checks itself
        return self


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
            raise ValueError(unknown_model(name, SWIN_SHAPES))
        if may_import(info):
            check_timm(name.removeprefix("timm/"), SWIN_SHAPES)
        return name


ModelConfig = Annotated[SwinModel | TimmModel, Variants("name")]


class ClassificationConfig(RunConfig):
    """Everything a classification run depends on."""

    of_other_tasks: ClassVar[Mapping[str, str]] = {"detection": "detection", "diffusion": "diffusion"}
    used_when_trained: ClassVar[tuple[str, ...]] = (
        "evaluation.thresholds",
        "evaluation.tta",
        "evaluation.size_bins",
        "evaluation.calibration_bins",
    )

    model: ModelConfig
    """What is trained."""
    data: DataConfig
    """Images and their classes."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes to training images."""
    loss: LossConfig = CrossEntropyConfig()
    """What is minimised."""
    evaluation: ClassificationEvaluationConfig = ClassificationEvaluationConfig()
    """When, on what weights and how to evaluate."""

    @model_validator(mode="after")
    def _no_unused_keys(self) -> "ClassificationConfig":
        filled = self.data.resize == "pad" or (self.augmentation.uncovers and isinstance(self.data.pad_fill, tuple))
        pad = "data.resize: pad (a colour also with augmentation that turns or moves images)"
        moves = ["data.resize", *(f"augmentation.{key}" for key in UNCOVERING)]
        several = "several labels an image (data.label_columns, data.label_separator)"
        labels = ["data.source", "data.label_columns", "data.label_separator"]
        one_label = not self.data.multi_label
        unread = [("evaluation.thresholds", several, labels)] if one_label else []
        unread += [] if one_label else [("evaluation.calibration_bins", "one label an image", labels)]
        refuse_unused(self, unread + ([] if filled else [("data.pad_fill", pad, moves)]))
        return self

    @model_validator(mode="after")
    def _fits_its_labels(self) -> "ClassificationConfig":
        several, evaluation = self.data.multi_label, self.evaluation
        if fault := loss_fault(self.loss, several) or measured(several, evaluation.thresholds).fault(evaluation):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _weights_are_published(self, info: ValidationInfo) -> "ClassificationConfig":
        if self.finetune.weights == "timm":
            check_published(self.model.name, self.model.timm_name, may_import(info))
        return self

    @model_validator(mode="after")
    def _batches_hold_pairs(self) -> "ClassificationConfig":
        """Neighbours are mixed, so that each device's part of a batch has to be even."""
        size, most = self.training.global_batch_size, self.training.micro_batch_size
        if self.augmentation.mixes:
            why = ", ".join(f"augmentation.{key}" for key in ("mixup", "cutmix") if getattr(self.augmentation, key))
            pairs = f"to mix pairs of images ({why})"
            if size % 2:
                raise ValueError(f"training.global_batch_size: must be even, not {size}, {pairs}")
            if most == 1:
                raise ValueError(f"training.micro_batch_size: must be at least 2 {pairs}")
        return self

    @model_validator(mode="after")
    def _images_hold_a_patch(self) -> "ClassificationConfig":
        patch = self.model.swin_shape().patch_size if isinstance(self.model, SwinModel) else 1
        if min(self.data.size) < patch:
            size = self.data.image_size
            raise ValueError(f"data.image_size: must be at least model.patch_size ({patch}), not {size}")
        return self
