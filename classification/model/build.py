"""The configured model, with the weights it starts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from classification.model.heads import replace_head
from classification.model.sections import KerasModel, ModelConfig, SwinModel
from engine.config.training import FinetuneConfig
from engine.datasets.labelled import some
from engine.errors import UserError
from engine.images.preprocessing import OF_KERAS
from engine.keras_models.build import ARCHITECTURES, build_keras
from engine.keras_models.weights import Layers, is_keras_file, read_layers, to_state
from engine.model.described import classes_of
from engine.model.pretrained import load_weights, read_weights, start_small, weights_file
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
        model = _build_keras(config, num_classes, image_size)
    else:
        options: dict[str, Any] = {"num_classes": num_classes}
        if config.drop_rate:
            options["drop_rate"] = config.drop_rate
        if config.drop_path is not None:
            options["drop_path_rate"] = config.drop_path
        model = create_timm(config.timm_name, "model", finetune.weights == "timm", image_size, **options)
    if isinstance(config, KerasModel) and isinstance(finetune.weights, Path) and is_keras_file(finetune.weights):
        _load_keras(model, config.name, finetune.weights, classes)
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


def _build_keras(config: KerasModel, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    smallest = ARCHITECTURES[config.name].smallest
    if min(image_size) < smallest:
        raise UserError(
            f"data.image_size: {config.name} needs at least {smallest} pixels a side, not {min(image_size)}"
        )
    try:
        return build_keras(config.name, num_classes, config.drop_rate, config.drop_path)
    except TypeError:
        raise UserError(f"model.drop_path: {config.name} has no stochastic depth; set it to null") from None


def _load_keras(model: nn.Module, name: str, file: Path, classes: Sequence[str] | None) -> None:
    """Copies the weights of one of Keras's files into ``model``, but for a classifier of other classes, or of none."""
    layers = read_layers(weights_file(file))
    log.info("weights to start from: %s", file)
    (path,) = classifier_paths(model)
    layer = ARCHITECTURES[name].layers(model)[path]
    if layer not in layers:
        log.info("%s has no layer %s: the classifier starts anew", file.name, layer)
        start_small(model.get_submodule(path))
    state = to_state(name, model, layers, file.name)
    _warn_of_scale(name, layers, file.name)
    load_weights(model, state, file.name, _other_classes(file.name, classes_of(file), classes))


def _warn_of_scale(name: str, layers: Layers, source: str) -> None:
    """Warns if a file's network was trained with another mean and deviation within than `auto` stands for."""
    if "normalization" not in layers:
        return
    mean, variance = (array.reshape(-1).astype(float) for array in layers["normalization"][:2])
    wanted_mean, wanted_std = map(np.array, OF_KERAS[name])
    published = np.allclose(variance, wanted_std, atol=1e-3)  # which a second layer makes up for
    std = variance if published else np.sqrt(variance)
    if not (np.allclose(mean, wanted_mean, atol=1e-3) and np.allclose(std, wanted_std, atol=1e-3)):
        given = [np.round(np.broadcast_to(values, 3), 4).tolist() for values in (mean, std)]
        log.warning(
            "finetune.weights: the layer normalization of %s is not as published: its weights want data.mean=%s and "
            "data.std=%s, for which `auto` does not stand",
            source,
            *given,
        )


def _other_classes(source: str, theirs: Sequence[str] | None, classes: Sequence[str] | None) -> bool:
    """Returns whether weights were trained on other classes than ``classes``, or in another order, and says so."""
    if classes is None or theirs is None or list(theirs) == list(classes):
        return False
    log.info(
        "finetune.weights: %s was trained on other classes, or in another order (%s there, %s here): its classifier is "
        "not taken over",
        source,
        some(list(theirs)),
        some(list(classes)),
    )
    return True


def _load(model: nn.Module, file: Path, classes: Sequence[str] | None) -> None:
    """Copies the weights of ``file`` into ``model``, but for a classifier that does not say ``classes``."""
    state, theirs = read_weights(file)
    other = _other_classes(file.name, theirs, classes)
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
