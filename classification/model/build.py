"""The configured model, with the weights it starts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from classification.model.heads import replace_head
from classification.model.sections import KerasModel, ModelConfig, SwinModel
from engine.config.training import FinetuneConfig
from engine.datasets.labelled import some
from engine.errors import UserError
from engine.keras_models.build import build_keras
from engine.keras_models.weights import is_keras_file, read_layers, to_state
from engine.model.pretrained import load_weights, read_weights, weights_file
from engine.model.stages import classifier_paths
from engine.model.timm_weights import create_timm
from swin import SwinTransformer, WeightsError, load_swin_weights

log = logging.getLogger(__name__)


def build_model(
    config: ModelConfig,
    finetune: FinetuneConfig,
    num_classes: int,
    image_size: tuple[int, int],
    classes: Sequence[str] | None = None,
) -> nn.Module:
    """Builds a classifier (B, 3, H, W) -> (B, num_classes) on the CPU, initialised from torch's global generator.

    Args:
        classes: their names. The classifier of weights that were trained on others, or on the same in another order,
            is not taken over; None: it is wherever it fits.

    Raises:
        UserError: the weights cannot be read or do not fit, the model refuses its settings, or it has more parameters
            than ``model.max_parameters``.
    """
    model: nn.Module
    if isinstance(config, SwinModel):
        shape = replace(config.swin_shape(), num_classes=num_classes, img_size=image_size, drop_rate=config.drop_rate)
        model = SwinTransformer(shape if config.drop_path is None else replace(shape, drop_path=config.drop_path))
    elif isinstance(config, KerasModel):
        model = _build_keras(config, num_classes)
    else:
        options: dict[str, Any] = {"num_classes": num_classes}
        if config.drop_rate:
            options["drop_rate"] = config.drop_rate
        if config.drop_path is not None:
            options["drop_path_rate"] = config.drop_path
        model = create_timm(config.timm_name, "model", finetune.weights == "timm", image_size, **options)
    if isinstance(config, KerasModel) and isinstance(finetune.weights, Path) and is_keras_file(finetune.weights):
        _load_keras(model, config.name, finetune.weights)
        finetune = finetune.model_copy(update={"weights": None})
    if config.head is not None:
        replace_head(model, config.head)
    count = sum(parameter.numel() for parameter in model.parameters())
    if config.max_parameters is not None and count > config.max_parameters:
        raise UserError(
            f"model.max_parameters: {config.name} has {count:,} parameters with {num_classes} classes, more than the "
            f"{config.max_parameters:,} allowed; choose a smaller model or raise the limit"
        )
    if isinstance(finetune.weights, Path):
        _load(model, finetune.weights, classes)
    return model


def _build_keras(config: KerasModel, num_classes: int) -> nn.Module:
    try:
        return build_keras(config.name, num_classes, config.drop_rate, config.drop_path)
    except TypeError:
        raise UserError(f"model.drop_path: {config.name} has no stochastic depth; set it to null") from None


def _load_keras(model: nn.Module, name: str, file: Path) -> None:
    """Copies the weights of one of Keras's files into ``model``, but for a classifier of other classes."""
    layers = read_layers(weights_file(file))
    log.info("weights to start from: %s", file)
    load_weights(model, to_state(name, model, layers), file.name)


def _load(model: nn.Module, file: Path, classes: Sequence[str] | None) -> None:
    """Copies the weights of ``file`` into ``model``, but for a classifier that does not say ``classes``."""
    state, theirs = read_weights(file)
    other = False
    if classes is not None and theirs is not None and list(theirs) != list(classes):
        other = True
        log.info(
            "finetune.weights: %s was trained on other classes, or in another order (%s there, %s here): its "
            "classifier is not taken over",
            file.name,
            some(theirs),
            some(list(classes)),
        )
    if not isinstance(model, SwinTransformer):
        load_weights(model, state, file.name, other)
        return
    if other:
        below = tuple(f"{path}." for path in classifier_paths(model))
        state = {name: tensor for name, tensor in state.items() if not name.startswith(below)}
    try:
        load_swin_weights(model, state)
    except WeightsError as error:
        raise UserError(f"finetune.weights: {file}: {error}") from None
