"""The configured model, with the weights it starts from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import timm
from torch import nn

from classification.config import ModelConfig
from engine.errors import UserError
from engine.settings import FinetuneConfig
from engine.weights import load_weights, read_state_dict
from swin import SwinTransformer, WeightsError, load_swin_weights


def build_model(
    config: ModelConfig, finetune: FinetuneConfig, num_classes: int, image_size: tuple[int, int]
) -> nn.Module:
    """A classifier (B, 3, H, W) -> (B, num_classes) on the CPU, initialised from torch's global generator.

    Raises:
        UserError: the weights cannot be read or do not fit, or the model refuses its settings.
    """
    model = _timm(config, num_classes, image_size) if config.timm_name else _swin(config, num_classes, image_size)
    if finetune.weights is not None:
        state = read_state_dict(finetune.weights)
        if isinstance(model, SwinTransformer):
            try:
                load_swin_weights(model, state)
            except WeightsError as error:
                raise UserError(f"finetune.weights: {finetune.weights}: {error}") from None
        else:
            load_weights(model, state, finetune.weights.name)
    return model


def _swin(config: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    shape = config.swin_shape()
    assert shape is not None
    drop_path = shape.drop_path if config.drop_path is None else config.drop_path
    return SwinTransformer(
        replace(shape, num_classes=num_classes, img_size=image_size, drop_rate=config.drop_rate, drop_path=drop_path)
    )


def _timm(config: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    assert config.timm_name is not None
    options: dict[str, Any] = {"num_classes": num_classes, "pretrained": config.pretrained}
    if config.drop_rate:
        options["drop_rate"] = config.drop_rate
    if config.drop_path is not None:
        options["drop_path_rate"] = config.drop_path
    try:
        try:
            # Models with position embeddings are built for one size; the others know no such argument.
            return timm.create_model(config.timm_name, img_size=image_size, **options)
        except TypeError:
            return timm.create_model(config.timm_name, **options)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise UserError(f"model: timm cannot make {config.timm_name} with these settings: {error}") from None
