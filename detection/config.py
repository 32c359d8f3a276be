"""The typed configuration of a detection run."""

from typing import ClassVar

from pydantic import ValidationInfo, model_validator

from detection.augmentation.sections import AugmentationConfig
from detection.boxes.sections import CrossEntropyConfig, LossConfig
from detection.data.sections import DataConfig
from detection.model.sections import BACKBONES, DetectorConfig, TimmDetector
from detection.report.metric_names import MEASURED
from engine.config.model_names import check_published
from engine.config.run import RunConfig
from engine.config.section import may_import, of_trained_model

COUNTED = 100
"""Detections of an image that COCO's figures look at."""


class DetectionConfig(RunConfig):
    """Everything a detection run depends on."""

    used_when_trained: ClassVar[tuple[str, ...]] = ("detection.postprocess",)
    only_to_train: ClassVar[tuple[str, ...]] = ("data.drop_last",)
    locations: ClassVar[tuple[str, ...]] = (*RunConfig.locations, "data.root", "data.train", "data.val", "data.test")

    detection: DetectorConfig = TimmDetector()
    """What is trained, and how its output is read."""
    data: DataConfig
    """Images with boxes."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes to training images."""
    loss: LossConfig = CrossEntropyConfig()
    """What is minimised."""

    def questions(self) -> list[str]:
        """Returns what is asked of settings that are possible and seldom meant."""
        asked, most = [], self.detection.postprocess.detections
        if self.loss.box_weight == 0:
            asked.append("loss.box_weight: 0: where boxes are is not learned, so that AP stays near 0; is that meant?")
        if most < COUNTED:
            text = (
                f"{most}: COCO's figures count the best {COUNTED} of an image, so that fewer lower them; is that meant?"
            )
            asked.append(f"detection.postprocess.detections: {text}")
        return asked

    @model_validator(mode="after")
    def _is_measured(self) -> "DetectionConfig":
        if fault := MEASURED.fault(self):
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _batch_norms_are_trained(self, info: ValidationInfo) -> "DetectionConfig":
        frozen = isinstance(self.detection, TimmDetector) and self.detection.frozen_batchnorm
        if frozen and self.finetune.weights is None and not of_trained_model(info):
            raise ValueError(
                "detection.frozen_batchnorm: keeps the batch norms of trained weights, but there are none; set "
                "finetune.weights, or leave it false"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_published(self, info: ValidationInfo) -> "DetectionConfig":
        backbone = self.detection.backbone
        if self.finetune.weights == "timm":
            ask_timm = backbone not in BACKBONES and may_import(info)
            check_published("detection.backbone", backbone, self.detection.timm_name, ask_timm)
        return self
