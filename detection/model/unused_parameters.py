"""A first pass through a new detector: whether it takes images of the configured size, and what has a part in it."""

from __future__ import annotations

import logging

import torch

from detection.model.ssd import SSD
from engine.errors import UserError

log = logging.getLogger(__name__)


def first_pass(model: SSD, size: tuple[int, int], device: torch.device) -> list[str]:
    """Takes parameters that have no part in the output of ``model`` out of training, and returns their names.

    Some of timm's models compute more maps than are taken (HRNet's finest, for one). What leads to those alone gets no
    gradient, for which DistributedDataParallel would wait for ever. The model is left in training mode.

    Raises:
        UserError: the backbone cannot take images of this size.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.eval()  # neither moves statistics nor draws random numbers
    try:
        output = model(torch.zeros(1, 3, *size, device=device))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"data.image_size: the backbone cannot take images of {size[0]} x {size[1]} pixels ({error}); many of "
            "timm's models need multiples of 32"
        ) from None
    total = output.logits.sum() + output.codes.sum()
    gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    model.train()
    unused = [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]
    for name in unused:
        trained[name].requires_grad_(False)
    if unused:
        count = sum(trained[name].numel() for name in unused)
        log.info("%s parameters have no part in the output and are not trained: %s, ...", f"{count:,}", unused[0])
    return unused
