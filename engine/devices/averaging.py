"""Moving many tensors towards others by a weight that only the device knows: what is fast on each kind of device."""

from __future__ import annotations

import torch
from torch import Tensor


def lerp_one_by_one(moved: tuple[Tensor, ...], targets: tuple[Tensor, ...], weight: Tensor) -> None:
    """Moves each of N tensors by ``weight``, 0-dim, of its distance to its target: one pass over memory, N calls.

    The way for a CPU, where reading and writing memory is what it costs.
    """
    for tensor, target in zip(moved, targets, strict=True):
        tensor.lerp_(target, weight.to(tensor.dtype))


def lerp_together(moved: tuple[Tensor, ...], targets: tuple[Tensor, ...], weight: Tensor) -> None:
    """Does what :func:`lerp_one_by_one` does in three calls; the differences take as much memory as the tensors.

    The way for a GPU, where each call costs the host more than three passes over memory cost the device; torch's own
    ``_foreach_lerp_`` would make a call for each tensor, too, unless the host knew the weight.
    """
    change = torch._foreach_sub(targets, moved)
    torch._foreach_mul_(change, weight)
    torch._foreach_add_(moved, change)
