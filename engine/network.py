"""From the bare model to the one that is trained: layout, compilation, gradients averaged over ranks."""

from __future__ import annotations

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.dist import Ranks
from engine.errors import UserError
from engine.settings import RunConfig


def prepare_network(model: nn.Module, config: RunConfig, ranks: Ranks) -> nn.Module:
    """Wraps ``model``, which keeps its names and stays the place where weights are read and written.

    Raises:
        UserError: the model or the device cannot do what the configuration asks for.
    """
    training = config.training
    if training.activation_checkpointing:
        try:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AttributeError, AssertionError):  # timm's models without it assert that it is not wanted
            raise UserError(
                f"training.activation_checkpointing: {type(model).__name__} does not support it; set it to false"
            ) from None
    if config.distributed.sync_batchnorm:
        if ranks.device.type != "cuda":
            raise UserError("distributed.sync_batchnorm: works on CUDA only; set it to false on CPU")
        model = convert_sync_batchnorm(model)  # timm's, since torch's loses the activations of timm's own layers
    if training.channels_last:
        model = model.to(memory_format=torch.channels_last)
    network = torch.compile(model) if training.compile else model
    if ranks.world_size == 1:
        return network  # type: ignore[return-value]
    return DistributedDataParallel(
        network,
        device_ids=[ranks.device.index] if ranks.device.type == "cuda" else None,
        broadcast_buffers=False,  # see engine.batchnorm
        gradient_as_bucket_view=True,
    )
