"""The `evaluation` section: what classification adds to it."""

from typing import Annotated, Literal

from pydantic import Field

from engine.settings import EvaluationConfig

Probability = Annotated[float, Field(ge=0, le=1)]


class ClassificationEvaluationConfig(EvaluationConfig):
    """When the model is evaluated during training, on which weights, and how."""

    thresholds: Probability | Literal["tuned"] = "tuned"
    """With several labels a picture: probability from which on a label is said; tuned: for each class the one that is
    best for its F1 on val, never on test, found at each evaluation during training and kept in the checkpoint."""
