"""The typed configuration of a detection run."""

from typing import ClassVar

from pydantic import model_validator

from detection.augmentation_config import AugmentationConfig
from detection.data_config import DataConfig
from detection.loss_config import LossConfig, MatchingConfig, PostprocessConfig
from detection.model_config import DetectorConfig
from engine.idle import refuse_idle
from engine.settings import RunConfig

TRAINED = ("detection.pretrained=false",)
"""What a command sets that uses a trained model: all weights come from its checkpoint."""


class DetectionSection(DetectorConfig):
    """The detector: its model, what its boxes are matched with in training, and how its output is read."""

    matching: MatchingConfig = MatchingConfig()
    """Which priors have to find which objects."""
    postprocess: PostprocessConfig = PostprocessConfig()
    """How predictions become detections."""


class DetectionConfig(RunConfig):
    """Everything a detection run depends on."""

    used_when_trained: ClassVar[tuple[str, ...]] = ("detection.postprocess",)

    detection: DetectionSection = DetectionSection()
    """What is trained, and how its output is read."""
    data: DataConfig
    """Pictures with boxes."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes to training pictures."""
    loss: LossConfig = LossConfig()
    """What is minimised."""

    @model_validator(mode="after")
    def _no_idle_keys(self) -> "DetectionConfig":
        refuse_idle(
            self,
            ["detection.pretrained"],
            needed="finetune.weights: null",
            holds=self.finetune.weights is None,
            deciders=["finetune.weights"],
        )
        return self
