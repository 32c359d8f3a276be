"""The configured Swin U-Net, with the weights it starts from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from diffusion.model.sections import SwinUNetConfig
from diffusion.model.swin_unet import SwinUNet, resized_positions
from diffusion.model.weights import load_encoder
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.model.pretrained import POSITIONS, misfit, read_weights
from swin.adapt import with_resized_tables
from swin.weights import WeightsError

log = logging.getLogger(__name__)

CLASSES = "condition.classes.weight"
"""What a network knows of each class."""
FRESH = "positions, what time and class do, the way up and the last layer"
"""What a classifier has nothing for."""


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
        log.info("%s is no diffusion, and gives the way down alone: %s start anew", path.name, FRESH)
        return
    anew = [CLASSES] if list(theirs or ()) != list(classes) else []
    kept = {name: tensor for name, tensor in _resized(network, state, path.name).items() if name not in anew}
    if fault := misfit(network.state_dict(), kept, anew):
        raise UserError(f"finetune.weights: {path} does not fit this network: {fault}")
    network.load_state_dict(kept, strict=False)
    if anew:
        what = "what the network knows of them starts anew" if classes else "this network is told none"
        log.info("%s has other classes, or in another order: %s", path.name, what)


def _resized(network: SwinUNet, state: Mapping[str, Tensor], source: str) -> Mapping[str, Tensor]:
    """Interpolates positions of images of another size, and the bias tables of another window."""
    resized = with_resized_tables(network, state)
    if tables := [name for name in state if resized[name] is not state[name]]:
        log.info("%s has another window: %d bias tables are interpolated to this one", source, len(tables))
    (_, rows, columns, dim), theirs = network.pos_embed.shape, state.get(POSITIONS)
    if theirs is not None and theirs.dim() == 4 and theirs.shape[3] == dim and theirs.shape[1:3] != (rows, columns):
        there = tuple(theirs.shape[1:3])
        log.info("%s has positions of %d x %d patches, interpolated to %d x %d", source, *there, rows, columns)
        resized[POSITIONS] = resized_positions(theirs, rows, columns)
    return resized
