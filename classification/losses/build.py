"""From the `loss` section and the training images to the loss: what fits which data, and weights by class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from classification.losses.class_weights import (
    PerClass,
    check_counts,
    class_weights,
    log_priors,
    per_class,
    positive_weights,
)
from classification.losses.multi_label import asymmetric, binary_cross_entropy
from classification.losses.sections import (
    AsymmetricConfig,
    BceConfig,
    CommonLoss,
    CrossEntropyConfig,
    FocalConfig,
    LogitAdjustedConfig,
    LossConfig,
    loss_fault,
)
from classification.losses.single_label import SampleLoss, cross_entropy, focal, logit_adjusted, one_against_all
from engine.datasets.labelled import LabelledImages, class_counts
from engine.datasets.sections import CommonData

log = logging.getLogger(__name__)


def build_training_loss(config: LossConfig, images: LabelledImages, device: torch.device) -> SampleLoss:
    """Builds the configured loss for the training ``images``, with its weights on ``device``.

    Raises:
        UserError: lists of numbers have another length than the classes; a class without images has no weight.
    """
    assert not loss_fault(config, images.multi_label), "the configuration checks itself"
    common: dict[str, Any] = {"label_smoothing": config.label_smoothing}
    if config.class_weights != "none":
        counts = check_counts(class_counts(images), images.classes, f"loss.class_weights: {config.class_weights}")
        values = class_weights(config.class_weights, counts, config.beta)
        _log_weights(f"class weights ({config.class_weights})", values, images.classes)
        common["weights"] = _tensor(values, device)
    if isinstance(config, FocalConfig) and config.alpha is not None:
        alpha = _tensor(per_class(config.alpha, images.classes, "loss.alpha"), device)
        if images.multi_label:
            common["alpha"] = alpha
        else:  # of a class, alpha is one more weight
            common["weights"] = alpha * common.get("weights", 1.0)
    if isinstance(config, FocalConfig):
        if images.multi_label:
            return partial(asymmetric, gamma_pos=config.gamma, gamma_neg=config.gamma, **common)
        return partial(focal, gamma=config.gamma, **common)
    if isinstance(config, AsymmetricConfig):
        common["clip"] = config.clip
        return partial(asymmetric, gamma_pos=config.gamma_pos, gamma_neg=config.gamma_neg, **common)
    if isinstance(config, LogitAdjustedConfig):
        counts = check_counts(class_counts(images), images.classes, "loss.name: logit_adjusted")
        return partial(logit_adjusted, shifts=_tensor(config.tau * log_priors(counts), device), **common)
    if isinstance(config, CrossEntropyConfig):
        return partial(cross_entropy, **common)
    assert isinstance(config, BceConfig), f"nothing computes {config.name}"
    if not images.multi_label:
        return partial(one_against_all, **common)
    if config.pos_weight != "none":
        common["positive_weights"] = _tensor(_positive_weights(config.pos_weight, images), device)
    return partial(binary_cross_entropy, **common)


def warn_of_balancing_twice(config: CommonLoss, data: CommonData) -> None:
    """Says so if both the draw of the images and the loss make up for classes of unequal size."""
    draws = {"data.oversample": data.oversample, "data.sampling": None if data.sampling == "natural" else data.sampling}
    losses = {
        "loss.class_weights": None if config.class_weights == "none" else config.class_weights,
        "loss.name": config.name if config.name == "logit_adjusted" else None,
    }
    draw, loss = ([f"{k}: {v}" for k, v in of.items() if v is not None] for of in (draws, losses))
    if draw and loss:
        log.warning(
            "%s and %s both favour rare classes, which are then favoured twice: the loss goes by the images as they "
            "lie on the disk, not as they are drawn; one of the two is usually enough",
            draw[0],
            loss[0],
        )


def _positive_weights(given: str | float | list[float], images: LabelledImages) -> PerClass:
    if not isinstance(given, str):
        return per_class(given, images.classes, "loss.pos_weight")
    counts = check_counts(class_counts(images), images.classes, f"loss.pos_weight: {given}")
    values = positive_weights(counts, len(images))
    _log_weights("weights of labels that are there", values, images.classes)
    return values


def _tensor(values: PerClass, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _log_weights(what: str, values: PerClass, classes: Sequence[str]) -> None:
    least, most = int(values.argmin()), int(values.argmax())
    log.info("%s: from %.3g (%s) to %.3g (%s)", what, values[least], classes[least], values[most], classes[most])
