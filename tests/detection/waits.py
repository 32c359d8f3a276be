"""Counts what makes the host wait for a device, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class CountWaits(TorchDispatchMode):
    """Lists the operators run inside it that read a scalar or have a result whose size depends on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "item", "unique", "torchvision.nms", "index.Tensor")

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in self.WAITS) and not _by_numbers(func, args):
            self.waits.append(str(func))
        return func(*args, **(kwargs or {}))


def _by_numbers(func: Any, args: Any) -> bool:
    """Indexing by whole numbers has a result of known size; by a mask it has not."""
    return "index.Tensor" in str(func) and all(index is None or index.dtype != torch.bool for index in args[1])
