"""How the memory of images and weights is ordered."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

_CONVOLUTIONS = 3
"""So many that look at neighbouring pixels make a model convolutional; a transformer's patch embedding is one."""


def uses_channels_last(setting: bool | Literal["auto"], model: nn.Module) -> bool:
    """Returns whether ``model`` is run in channels-last layout, as `training.channels_last` says.

    `auto` is on for convolutional models, whose kernels for that layout are the fast ones on GPUs and CPUs alike, and
    off for those that mostly multiply matrices.
    """
    if setting != "auto":
        return setting
    wide = [m for m in model.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    return len(wide) >= _CONVOLUTIONS


def laid_out(images: Tensor, channels_last: bool) -> Tensor:
    """Returns ``images`` (B, C, H, W) in the layout that the model is run with."""
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images
