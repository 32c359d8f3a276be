"""The sections that say what the model learns from and what its output becomes: matching, loss and post-processing."""

from typing import Annotated, Literal

from pydantic import model_validator

from engine.config.section import (
    Count,
    CountOrNone,
    Fraction,
    NonNegative,
    PartOfOne,
    Positive,
    Probability,
    Section,
    Variants,
)


class MatchingConfig(Section):
    """Which priors have to find which objects."""

    iou: PartOfOne = 0.5
    """Least overlap (IoU) of a prior with an object that it has to find; each object's best prior is taken anyway."""
    ignored_part: PartOfOne = 0.5
    """Part of a prior that has to lie in a crowd region for it to learn nothing there."""


class CommonLoss(Section):
    """What all losses have in common: a loss of classes and one of boxes, summed over the priors of each image."""

    classification: str
    """The loss of classes."""
    boxes: Literal["smooth_l1", "giou", "ciou"] = "smooth_l1"
    """Smooth L1 of the box codes, or generalised or complete IoU of the boxes (arXiv:1902.09630, 1911.08287)."""
    box_weight: NonNegative = 1.0
    """What the loss of boxes is multiplied by."""
    normalizer: Literal["positives"] | Positive = "positives"
    """What an image's sum is divided by: the number of its priors that have objects, or this number for all."""

    @property
    def sigmoid(self) -> bool:
        """Whether each class has a probability of its own; else the model's first output is for the background."""
        return self.classification == "focal"


class CrossEntropyConfig(CommonLoss):
    """Softmax with a background class and hard negative mining."""

    classification: Literal["cross_entropy"] = "cross_entropy"
    """Softmax with a background class and hard negative mining."""
    negatives_per_positive: NonNegative = 3.0
    """For each prior that has an object, so many of the worst that have none are counted too."""
    min_negatives: CountOrNone = 3
    """So many are counted at least, also of an image without objects."""


class FocalConfig(CommonLoss):
    """Sigmoids, and all priors count."""

    classification: Literal["focal"]
    """Sigmoid focal loss of all priors (arXiv:1708.02002)."""
    focal_alpha: Probability = 0.25
    """Weight of a class where it is; one minus this where it is not."""
    focal_gamma: NonNegative = 2.0
    """How much less a prior counts that is right already."""


LossConfig = Annotated[CrossEntropyConfig | FocalConfig, Variants("classification")]


class PostprocessConfig(Section):
    """How predictions become detections."""

    score_threshold: Fraction = 0.01
    """Least score of a detection."""
    candidates: Count = 1000
    """Best pairs of prior and class of an image that go on to suppression; fewer are faster."""
    nms_iou: PartOfOne = 0.45
    """Of two detections of a class that overlap by more than this (IoU), the one with the lower score is dropped."""
    detections: Count = 200
    """Most detections of an image; the COCO figures use the best 100."""

    @model_validator(mode="after")
    def _candidates_suffice(self) -> "PostprocessConfig":
        if self.candidates < self.detections:
            raise ValueError(f"candidates: must be at least `detections` ({self.detections}), not {self.candidates}")
        return self
