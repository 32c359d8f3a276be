"""From the bare model to the one that is trained: layout, compilation, gradients averaged over ranks."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from engine.config.run import DistributedConfig
from engine.config.training import TrainingConfig
from engine.devices.depthwise import quicken_depthwise
from engine.devices.kinds import device_kind
from engine.devices.memory_layout import uses_channels_last
from engine.devices.precision import resolve_precision
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.model.compiling import compile_for_training

_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # the second is the name in older versions of torch
    if name in inspect.signature(DistributedDataParallel).parameters
)


def prepare_model(
    model: nn.Module, training: TrainingConfig, distributed: DistributedConfig, ranks: Ranks
) -> nn.Module:
    """Sets up checkpointing, batch norm over ranks, layout and quicker layers, in place where possible.

    Returns the model.

    Raises:
        UserError: the model or the device cannot do what the configuration asks for.
    """
    if training.activation_checkpointing:
        try:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AttributeError, AssertionError):  # timm's models without it assert that it is not wanted
            raise UserError(
                f"training.activation_checkpointing: {type(model).__name__} does not support it; set it to false"
            ) from None
    if distributed.sync_batchnorm and ranks.world_size > 1:
        check_sync_batchnorm(distributed, ranks.device)
        model = convert_sync_batchnorm(model)  # timm's, since torch's loses the activations of timm's own layers
    if uses_channels_last(training.channels_last, model):
        model = model.to(memory_format=torch.channels_last)
    if resolve_precision(training.precision, ranks.device).name in device_kind(ranks.device).slow_depthwise:
        quicken_depthwise(model)
    return model


def check_sync_batchnorm(config: DistributedConfig, device: torch.device) -> None:
    """Raises a :class:`UserError` if batch norm is wanted over ranks whose devices cannot do it."""
    if config.sync_batchnorm and device.type != "cuda":
        raise UserError("distributed.sync_batchnorm: works on CUDA only; set it to false for several ranks on CPUs")


def wrap_model(model: nn.Module, training: TrainingConfig, ranks: Ranks) -> nn.Module:
    """Compiles ``model`` and has its gradients averaged over ranks, as the configuration asks.

    The model keeps its names and stays the place where weights are read and written. It is wrapped anew whenever other
    parameters are trained than before: DDP reduces the gradients of those that required one when it was built, and
    compiled code that was made for others is thrown away, so that a run that begins here compiles the same.
    """
    network = model
    if mode := training.compile:
        network = compile_for_training(model, "default" if mode is True else mode)
    if ranks.world_size == 1:
        return network
    sync_buffers: dict[str, Any] = {_SYNC_BUFFERS: False}  # see engine.model.batch_norm
    # Without `device_ids`, on GPUs too: batches lie on the device already, and DDP would look for inputs to be moved.
    parallel = DistributedDataParallel(_Settling(network), gradient_as_bucket_view=True, **sync_buffers)
    if training.grad_comm == "bf16":
        parallel.register_comm_hook(None, bf16_compress_hook)
    settle_reduction_layout(parallel)
    return parallel


def settle_reduction_layout(network: DistributedDataParallel) -> None:
    """Has the ranks' gradients summed in one order from the first step on.

    After the first backward pass DDP distributes the parameters over new buckets, in the order in which their gradients
    were ready. A ring of three or more ranks then adds most elements in another order, and the first step after a start
    differs in last bits from the same step in mid-run: a resumed run would not repeat an uninterrupted one. The pass
    that is made here, over the parameters alone and in reverse order, is the first one at every start; it leaves no
    gradients behind.
    """
    network().backward()
    network.zero_grad(set_to_none=True)


class _Settling(nn.Module):
    """A network that, called with nothing, returns a zero that depends on each of its trainable parameters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Any, **named: Any) -> Any:
        if inputs or named:
            return self.network(*inputs, **named)
        return 0 * torch.stack([p.sum(dtype=torch.float32) for p in self.parameters() if p.requires_grad]).sum()
