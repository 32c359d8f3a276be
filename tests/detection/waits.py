"""Counts what makes the host wait for a device, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class CountWaits(TorchDispatchMode):
    """Lists what is run inside it that reads a value or has a result whose size depends on values."""

    WAITS = (
        "_local_scalar_dense",
        "aten.equal.",
        "bincount",
        "index.Tensor",
        "index_put",
        "item",
        "masked_select",
        "nonzero",
        "repeat_interleave.Tensor",
        "torchvision.nms",
        "unique",
    )

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._reads = _CountReads(self.waits)

    def __enter__(self) -> CountWaits:
        self._reads.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._reads.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in self.WAITS) and not _by_numbers(func, args):
            self.waits.append(str(func))
        return func(*args, **(kwargs or {}))


class _CountReads(TorchFunctionMode):
    """Reading a whole tensor runs no operator where it lies on the CPU already."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.cpu):
            self._waits.append(func.__name__)
        return func(*args, **(kwargs or {}))


def _by_numbers(func: Any, args: Any) -> bool:
    """Indexing by whole numbers has a result of known size; by a mask it has not."""
    return "index" in str(func) and all(index is None or index.dtype != torch.bool for index in args[1])
