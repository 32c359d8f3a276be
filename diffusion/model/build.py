"""The configured Swin U-Net, with the weights it starts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from diffusion.model.sections import SwinUNetConfig
from diffusion.model.swin_unet import SwinUNet
from diffusion.model.weights import load_encoder
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.model.pretrained import misfit, read_weights
from swin.weights import WeightsError

log = logging.getLogger(__name__)

CLASSES = "condition.classes.weight"
"""What a network knows of each class."""


def build_network(
    config: SwinUNetConfig, finetune: FinetuneConfig, size: tuple[int, int], channels: int, classes: Sequence[str]
) -> SwinUNet:
    """Builds the network on the CPU, from torch's global generator where there are no weights.

    Args:
        config: Its shape.
        finetune: What it starts from: another diffusion, or a classifier for the way down.
        size: Height and width of the images.
        channels: Of the images.
        classes: Those that it is told; none: it is told no class.

    Raises:
        UserError: it has too many parameters, or the weights do not fit.
    """
    network = SwinUNet(config.shape(size, channels, len(classes)))
    count, most = sum(parameter.numel() for parameter in network.parameters()), config.max_parameters
    if most is not None and count > most:
        raise UserError(f"model.max_parameters: {config.name} has {count:,} parameters, more than {most:,}")
    patch = network.config.patch_size
    padded = tuple(side + -side % patch for side in size)
    if padded != size:
        text = "images of %d x %d are padded to %d x %d, whole patches of %d, and cut again behind the network"
        log.info(text, *size, *padded, patch)
    if isinstance(finetune.weights, Path):
        _start_from(network, finetune.weights, classes)
    return network


def _start_from(network: SwinUNet, path: Path, classes: Sequence[str]) -> None:
    """Copies weights in place; those of other classes than the network's are left."""
    state, theirs = read_weights(path)
    if not any(name.startswith("up_layers.") for name in state):
        try:
            load_encoder(network, state)
        except WeightsError as error:
            raise UserError(f"finetune.weights: {path}: {error}") from None
        return
    anew = [CLASSES] if list(theirs or ()) != list(classes) else []
    kept = {name: tensor for name, tensor in state.items() if name not in anew}
    if fault := misfit(network.state_dict(), kept, anew):
        raise UserError(f"finetune.weights: {path} does not fit this network: {fault}")
    network.load_state_dict(kept, strict=False)
    if anew and classes:
        log.info("%s has other classes, or in another order: what the network knows of them starts anew", path.name)
