"""What a model costs: its parameters, and the operations of a forward pass."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

log = logging.getLogger(__name__)


def model_cost(model: nn.Module, example: Callable[[], tuple[Tensor, ...]]) -> dict[str, int | None]:
    """Returns ``parameters``, those that are ``trainable`` now, and ``flops`` of the forward pass of one image.

    A multiplication with its addition counts as two operations, as in papers that say FLOPs and not MACs; only matrix
    products and convolutions are counted. A model that cannot be counted has None.

    Args:
        example: Returns what the model takes for one image.
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    flops: int | None = None
    training = {module: module.training for module in model.modules()}
    try:
        # By plain matrix products, as the counter does not know all kernels of attention.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.eval()(*example())
        flops = counter.get_total_flops() or None
    except Exception as error:  # whatever it is, the run can do without
        log.debug("the operations of the model cannot be counted: %s", error)
    finally:
        for module, mode in training.items():
            module.training = mode
    return {
        "parameters": sum(size for size, _ in sizes),
        "trainable": sum(size for size, trainable in sizes if trainable),
        "flops": flops,
    }
