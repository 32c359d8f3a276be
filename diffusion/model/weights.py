"""Weights of a classifier for the way down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diffusion.model.swin_unet import SwinUNet
from swin.model import SwinFeatures
from swin.weights import LoadReport, load_swin_weights


def load_encoder(model: SwinUNet, weights: str | Path | Mapping[str, Any]) -> LoadReport:
    """Copies a Swin Transformer's patch embedding and stages into the way down of `model`, in place.

    What modulates the blocks, the way up and what lies around them stay as they are.

    Args:
        model: The network.
        weights: As for :func:`swin.load_swin_weights`.

    Raises:
        WeightsError: as from there.
    """
    shape = replace(model.config, num_classes=0, patch_norm=True)
    encoder = SwinFeatures(shape)
    report = load_swin_weights(encoder, weights)
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if name in own:
                own[name].copy_(tensor)
    return report
