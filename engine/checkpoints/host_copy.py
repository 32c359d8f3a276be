"""A copy of a tree of tensors and plain types in host memory that is used again for the next copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

Form = tuple[torch.dtype, torch.Size, tuple[int, ...], bool]
"""What a buffer is chosen by: its source's type, shape and strides, and whether that is on a GPU."""


class Snapshot:
    """Host memory for one state at a time.

    The memory is kept from copy to copy, so that the kernel need not map and clear it anew: only the first copy pays
    for that.
    """

    def __init__(self) -> None:
        self._buffers: dict[Form, list[Tensor]] = {}

    def take(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Returns a copy of ``tree`` that shares nothing with it. It is valid until the next call, which overwrites it.

        Tensors become plain tensors on the CPU of the same strides; of one that views a larger storage only the viewed
        part is copied. Equal views of the same memory, such as tied weights, are one tensor in the copy. Tensors are
        looked for in dicts, lists and tuples; everything else is deep-copied.
        """
        sources = {_identity(tensor): tensor for tensor in tensors_in(tree)}
        copies = dict(zip(sources, self._buffers_for(sources.values()), strict=True))
        if sources:
            with torch.no_grad():
                torch._foreach_copy_(list(copies.values()), list(sources.values()), non_blocking=True)
        for device in {tensor.device for tensor in sources.values() if tensor.is_cuda}:
            torch.cuda.current_stream(device).synchronize()
        return deepcopy(tree, {id(tensor): copies[_identity(tensor)] for tensor in tensors_in(tree)})

    def _buffers_for(self, sources: Iterable[Tensor]) -> list[Tensor]:
        """Returns a buffer for each source: kept ones where they fit, else new ones; frees those not used again."""
        kept, self._buffers = self._buffers, {}
        chosen = []
        for source in sources:
            form = (source.dtype, source.shape, source.stride(), source.is_cuda)
            fitting = kept.get(form)
            # Strides that leave gaps or overlap become compact ones.
            buffer = fitting.pop() if fitting else torch.empty_like(source, device="cpu", pin_memory=source.is_cuda)
            self._buffers.setdefault(form, []).append(buffer)
            chosen.append(buffer)
        return chosen


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Returns the tensors in a tree of dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors_in(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from tensors_in(value)


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Returns a key: equal for views of the same memory that are alike, unique where there is nothing to view."""
    place = (tensor.device, tensor.data_ptr()) if tensor.numel() else id(tensor)
    return place, tensor.dtype, tensor.shape, tensor.stride()
