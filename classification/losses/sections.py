"""The `loss` section: what is minimised."""

from typing import Annotated, Literal

from pydantic import model_validator

from engine.config.section import Fraction, NonNegative, OnlyWith, Positive, Section, Variants
from engine.config.type_words import one_of


class CommonLoss(Section):
    """What all losses have in common. Every loss is right for the mixed targets of Mixup and CutMix."""

    name: str
    """What is minimised."""
    label_smoothing: Fraction = 0.0
    """Part of each target that is spread evenly: over all classes, or with several labels over yes and no."""
    class_weights: Literal["none", "inverse", "effective_number", "log"] = "none"
    """Weight of each class by its number n of training images, N in all C classes, normalised to sum C; inverse: 1/n;
    effective_number: (1 - beta)/(1 - beta^n); log: log(1 + N/(n C)). An image's loss is multiplied by the weight of
    its class (with several labels: each label's loss by its own), and the mean is over images, not over weights."""
    beta: Annotated[Fraction, OnlyWith(("class_weights",), ("effective_number",))] = 0.999
    """effective_number: share of a class's images that bring something new; towards 1 it nears `inverse`."""


class CrossEntropyConfig(CommonLoss):
    """Cross entropy of one label an image."""

    name: Literal["cross_entropy"] = "cross_entropy"
    """For one label an image."""


class FocalConfig(CommonLoss):
    """Focal loss (arXiv:1708.02002)."""

    name: Literal["focal"]
    """For one label an image, or several."""
    gamma: NonNegative = 2.0
    """How much less an image counts that is already right; 0: cross entropy or bce."""
    alpha: Positive | list[Positive] | None = None
    """Factor of the loss, one or one a class in their order; with several labels in (0, 1): alpha for those that are
    there, 1 - alpha for those that are not; null: none."""


class BceConfig(CommonLoss):
    """Binary cross entropy of each class against the rest."""

    name: Literal["bce"]
    """For one label an image, or several."""
    pos_weight: Literal["none", "inverse"] | Positive | list[Positive] = "none"
    """With several labels: factor for labels that are there; inverse: a class's images without it by those with it;
    or one number, or one a class in their order."""


class AsymmetricConfig(CommonLoss):
    """Asymmetric loss (arXiv:2009.14119)."""

    name: Literal["asymmetric"]
    """For several labels an image."""
    gamma_pos: NonNegative = 0.0
    """How much less a label counts that is there and already right."""
    gamma_neg: NonNegative = 4.0
    """The same for labels that are not there."""
    clip: Fraction = 0.05
    """Probability below which a label that is not there costs nothing."""


class LogitAdjustedConfig(CommonLoss):
    """Cross entropy of logits to which training adds the classes' log frequencies (arXiv:2007.07314)."""

    name: Literal["logit_adjusted"]
    """For one label an image."""
    tau: NonNegative = 1.0
    """Weight of the classes' log frequencies; 0: cross entropy."""

    @model_validator(mode="after")
    def _weighs_once(self) -> "LogitAdjustedConfig":
        if self.class_weights != "none":
            raise ValueError(
                f"class_weights: {self.class_weights}: logit_adjusted makes up for unequal classes by itself; "
                "with weights they would be counted twice; set class_weights: none"
            )
        return self


LossConfig = Annotated[
    CrossEntropyConfig | FocalConfig | BceConfig | AsymmetricConfig | LogitAdjustedConfig, Variants("name")
]

ONE_LABEL = ("cross_entropy", "focal", "bce", "logit_adjusted")
SEVERAL_LABELS = ("bce", "focal", "asymmetric")
"""The losses for data of one label an image, and of several."""


def loss_fault(config: CommonLoss, multi_label: bool) -> str:
    """Says why this loss does not fit data of several labels an image, or of one; empty if it does."""
    first, *others = SEVERAL_LABELS if multi_label else ONE_LABEL
    if config.name not in (first, *others):
        theirs, ours = (
            ("one label", "several (data.label_columns, data.label_separator)")
            if multi_label
            else ("several labels", "one each")
        )
        return (
            f"loss.name: {config.name} is for {theirs} an image, and these images have {ours}; "
            f"set loss.name: {first} (or {one_of(others)})"
        )
    if isinstance(config, BceConfig) and not multi_label and config.pos_weight != "none":
        return "loss.pos_weight: only for several labels an image; for one, use loss.class_weights"
    if not isinstance(config, FocalConfig):
        return ""
    if not multi_label and isinstance(config.alpha, list) and config.class_weights != "none":
        return "loss.alpha: one number a class is a weight of the class, and so is loss.class_weights; keep one"
    alphas = config.alpha if isinstance(config.alpha, list) else [config.alpha or 0.0]
    if multi_label and any(alpha >= 1 for alpha in alphas):
        return (
            "loss.alpha: with several labels an image it must be below 1: alpha is the weight of labels that are "
            "there, 1 - alpha of those that are not (Lin et al.: 0.25)"
        )
    return ""
