"""The typed configuration of a classification run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, model_validator

from classification.augmentation.sections import UNCOVERING, AugmentationConfig
from classification.losses.sections import LossConfig, loss_fault
from classification.metrics.names import measured
from classification.metrics.sections import ClassificationEvaluationConfig
from engine.config.model_names import check_published, check_timm, unknown_model
from engine.config.section import Section, may_import
from engine.config.sections import RunConfig
from engine.config.unused_keys import refuse_idle
from engine.datasets.sections import DataConfig
from swin.config import SHAPES, SwinConfig

Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]

SWIN_SHAPES = {**SHAPES, "swin": SHAPES["swin_tiny"]}
"""What each of our model names starts from."""

SWIN_FIELDS = ("patch_size", "window_size", "embed_dim", "depths", "num_heads", "mlp_ratio")
"""What a Swin's shape may be given by, under the names of :class:`swin.SwinConfig`."""


class HeadConfig(Section):
    """A hidden layer before the classes: dropout, linear layer, activation, batch norm, dropout, linear layer."""

    hidden: Annotated[int, Field(ge=1)]
    """Width of the hidden layer."""
    dropout: Fraction = 0.0
    """Dropout of the backbone's features."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """What follows the hidden layer."""
    batch_norm: bool = False
    """Batch norm after the activation."""
    hidden_dropout: Fraction = 0.0
    """Dropout of the hidden layer's output."""


class ModelConfig(Section):
    """The model: a Swin Transformer, or any of timm's."""

    name: str
    """swin_tiny, swin_small, swin_base, swin_large; swin for a shape of one's own; or timm/NAME."""
    drop_path: Fraction | None = None
    """Stochastic depth: probability of dropping the last block's branches; null: the model's own."""
    drop_rate: Fraction = 0.0
    """Dropout before the classifier."""
    head: HeadConfig | None = None
    """Layers of one's own in place of the classifier, on any model; null: the model's own single layer."""
    max_parameters: Count | None = None
    """Refuse a model of more parameters than this; null: any."""
    patch_size: Count | None = None
    """Swin: pixels of a patch's side; null: the model's own, as for all that follow."""
    window_size: Count | None = None
    """Swin: patches of a window's side."""
    embed_dim: Count | None = None
    """Swin: channels of the first stage."""
    depths: tuple[Count, ...] | None = None
    """Swin: blocks of each stage."""
    num_heads: tuple[Count, ...] | None = None
    """Swin: attention heads of each stage."""
    mlp_ratio: Annotated[float, Field(gt=0)] | None = None
    """Swin: hidden width of the MLPs, relative to their input."""

    @property
    def swin_fields(self) -> dict[str, Any]:
        """What is given of a Swin's shape, under the names of :class:`swin.SwinConfig`."""
        return {name: getattr(self, name) for name in SWIN_FIELDS if getattr(self, name) is not None}

    def swin_shape(self) -> SwinConfig | None:
        """The shape of our Swin; None for timm's models. A ``ValueError`` names fields that do not fit together."""
        return replace(SWIN_SHAPES[self.name], **self.swin_fields) if self.timm_name is None else None

    @property
    def timm_name(self) -> str | None:
        """timm's name of the model; None for ours."""
        return self.name.removeprefix("timm/") if self.name.startswith("timm/") else None

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> "ModelConfig":
        if self.head is not None and self.head.dropout and self.drop_rate:
            raise ValueError("give `head.dropout` or `drop_rate`, not both: they are at the same place")
        if self.timm_name is not None:
            refuse_idle(self, SWIN_FIELDS, needed="a name of our own Swin models", holds=False, deciders=["name"])
            if may_import(info):
                check_timm(self.timm_name, SWIN_SHAPES)
            return self
        if self.name not in SWIN_SHAPES:
            raise ValueError(f"name: {unknown_model(self.name, SWIN_SHAPES)}")
        missing = [key for key in ("embed_dim", "depths", "num_heads") if key not in self.swin_fields]
        if self.name == "swin" and missing:
            raise ValueError(f"a swin of one's own shape also needs {' and '.join(missing)}")
        self.swin_shape()  # checks itself
        return self


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
    """Pictures and their classes."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes to training pictures."""
    loss: LossConfig = LossConfig()
    """What is minimised."""
    evaluation: ClassificationEvaluationConfig = ClassificationEvaluationConfig()
    """When, on what weights and how to evaluate."""

    @model_validator(mode="after")
    def _no_idle_keys(self) -> "ClassificationConfig":
        filled = self.data.resize == "pad" or (self.augmentation.uncovers and isinstance(self.data.pad_fill, tuple))
        refuse_idle(
            self,
            ["data.pad_fill"],
            needed="data.resize: pad (a colour also with augmentation that turns or moves pictures)",
            holds=filled,
            deciders=["data.resize", *(f"augmentation.{key}" for key in UNCOVERING)],
        )
        several = self.data.multi_label
        labels = ["data.source", "data.label_columns", "data.label_separator"]
        for key, needed, holds in [
            ("evaluation.thresholds", "several labels a picture (data.label_columns, data.label_separator)", several),
            ("evaluation.calibration_bins", "one label a picture", not several),
        ]:
            refuse_idle(self, [key], needed=needed, holds=holds, deciders=labels)
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
            if size % 2:
                raise ValueError(
                    f"training.global_batch_size: must be even, not {size}, to mix pairs of pictures ({why})"
                )
            if most == 1:
                raise ValueError(f"training.micro_batch_size: must be at least 2 to mix pairs of pictures ({why})")
        return self

    @model_validator(mode="after")
    def _pictures_hold_a_patch(self) -> "ClassificationConfig":
        size = self.data.image_size
        sides = (size, size) if isinstance(size, int) else size
        shape = self.model.swin_shape()
        if shape is not None and min(sides) < shape.patch_size:
            raise ValueError(f"data.image_size: must be at least model.patch_size ({shape.patch_size}), not {size}")
        return self
