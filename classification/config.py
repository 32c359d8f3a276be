"""The typed configuration of a classification run."""

from typing import ClassVar

from pydantic import ValidationInfo, model_validator

from classification.augmentation.sections import UNCOVERING, AugmentationConfig
from classification.losses.sections import CrossEntropyConfig, LossConfig, loss_fault
from classification.metrics.names import measured
from classification.metrics.sections import ClassificationEvaluationConfig
from classification.model.sections import ModelConfig, SwinModel
from engine.config.model_names import check_published
from engine.config.run import RunConfig
from engine.config.section import may_import, refuse_unused
from engine.datasets.sections import DataConfig


class ClassificationConfig(RunConfig):
    """Everything a classification run depends on."""

    used_when_trained: ClassVar[tuple[str, ...]] = (
        "evaluation.thresholds",
        "evaluation.tta",
        "evaluation.size_bins",
        "evaluation.calibration_bins",
    )
    only_to_train: ClassVar[tuple[str, ...]] = ("data.drop_last", "data.sampling", "data.oversample")
    locations: ClassVar[tuple[str, ...]] = (*RunConfig.locations, "data.root", "data.csv")

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
        several = self.data.multi_label
        if fault := loss_fault(self.loss, several) or measured(several, self.evaluation.thresholds).fault(self):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _weights_are_published(self, info: ValidationInfo) -> "ClassificationConfig":
        if self.finetune.weights == "timm":
            check_published("model.name", self.model.name, self.model.timm_name, may_import(info))
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
