"""The `evaluation` section: what classification adds to it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from engine.config.section import Count, Probability, Size
from engine.config.training import EvaluationConfig


def _increasing(bounds: list[int]) -> list[int]:
    if bounds != sorted(set(bounds)):
        raise ValueError(f"the bounds must increase, not {bounds}")
    return bounds


class ClassificationEvaluationConfig(EvaluationConfig):
    """When the model is evaluated during training, on which weights, and how."""

    thresholds: Probability | Literal["tuned"] = "tuned"
    """With several labels an image: probability from which on a label is said; tuned: for each class the one that is
    best for its F1 on val, never on test, found at each evaluation during training and kept in the checkpoint."""

    tta: Literal["none", "flip"] = "none"
    """Test-time augmentation. flip: probabilities are the means over an image and its mirror image, in the evaluations
    of training too; twice the time."""
    size_bins: Annotated[list[Count], Field(min_length=1), AfterValidator(_increasing)] = [2, 10, 100, 500]
    """Training images from which on a class belongs to the next group of those whose accuracy is reported: by default
    the classes of 2 to 9, 10 to 99, 100 to 499, and 500 images or more."""
    calibration_bins: Size = 15
    """Groups of equal width by which probabilities are compared with accuracy, for the calibration error."""
