"""Moving many tensors towards others by a weight that only the device knows: what is fast on each kind of device."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby

import torch
from torch import Tensor

Pairs = Sequence[tuple[Tensor, Tensor]]
"""What is moved, and towards what: tensors of equal shape."""

CHUNK_BYTES = 2**26
"""About how much is moved at once by :func:`lerp_together`, as the differences take memory of their own."""


def lerp_one_by_one(pairs: Pairs, weight: Tensor) -> None:
    """Moves each first tensor by ``weight``, 0-dim, of its distance to the second: one pass over memory, a call each.

    The way for a CPU, where reading and writing memory is what it costs.
    """
    for moved, target in pairs:
        moved.lerp_(target, weight.to(moved.dtype))


def lerp_together(pairs: Pairs, weight: Tensor, chunk_bytes: int = CHUNK_BYTES) -> None:
    """Does what :func:`lerp_one_by_one` does in three calls for many tensors.

    The way for a GPU, where each call costs the host more than three passes over memory cost the device; torch's own
    ``_foreach_lerp_`` would make a call for each tensor, too, unless the host knew the weight.
    """
    ends = accumulate(moved.nbytes for moved, _ in pairs)
    for _, chunk in groupby(zip(pairs, ends, strict=True), lambda item: item[1] // chunk_bytes):
        moved, targets = zip(*(pair for pair, _ in chunk), strict=True)
        change = torch._foreach_sub(targets, moved)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(moved, change)
