"""Any object from process to process: its arrays and tensors as the bytes they are, the rest as a small pickle.

What is sent this way never lies in a file, and only ever comes from the same job.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

CHUNK_BYTES = 64 << 20
"""Most bytes of one broadcast, and thus what sending costs in memory besides the object itself."""
ALIGNMENT = 64
"""Of each array in shared memory, as torch aligns its own."""
Bytes = NDArray[np.uint8]


def pack(value: Any) -> list[Bytes]:
    """Returns ``value`` as arrays of bytes: first a pickle, then the contents of its arrays and of tensors' storages.

    Contents are not copied, unless an array is not contiguous. Tensors on the CPU keep their strides, and share memory
    where they do in ``value``; others travel within the pickle.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = io.BytesIO()
    _Pickler(head, buffers.append).dump(value)
    return [np.frombuffer(head.getvalue(), np.uint8), *(np.asarray(buffer.raw()) for buffer in buffers)]


def unpack(parts: Sequence[Bytes]) -> Any:
    """Returns what was packed. Its arrays and tensors lie in the memory of ``parts``."""
    return pickle.loads(parts[0].tobytes(), buffers=parts[1:])


def share(value: Any) -> tuple[Tensor, list[int]]:
    """Packs ``value`` into shared memory: for :func:`shared` in other processes, to which both can be pickled."""
    parts = pack(value)
    sizes = [len(part) for part in parts]
    memory = torch.empty(sum(map(_aligned, sizes)), dtype=torch.uint8).share_memory_()
    for place, part in zip(_places(memory, sizes), parts, strict=True):
        place[:] = part
    return memory, sizes


def shared(memory: Tensor, sizes: Sequence[int]) -> Any:
    """Returns what :func:`share` has packed. Its arrays lie in the shared memory, and cost this process none."""
    return unpack(_places(memory, sizes))


def _places(memory: Tensor, sizes: Sequence[int]) -> list[Bytes]:
    starts = np.cumsum([0, *map(_aligned, sizes)])
    return [memory.numpy()[start : start + size] for start, size in zip(starts, sizes, strict=False)]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def broadcast(
    parts: Sequence[Bytes] | None, device: torch.device, tick: Callable[[], None], chunk_bytes: int = CHUNK_BYTES
) -> list[Bytes]:
    """Sends the arrays of rank 0 to all ranks, each of which calls this; returns them on every rank.

    Args:
        parts: what :func:`pack` returned on rank 0; None on the others.
        device: where the process group's collectives take their tensors.
        tick: called for every chunk that has come through.
    """
    count = torch.tensor([0 if parts is None else len(parts)], device=device)
    dist.broadcast(count, src=0)
    sizes = torch.tensor([0] * int(count) if parts is None else [len(part) for part in parts], device=device)
    dist.broadcast(sizes, src=0)
    # Memory from torch is aligned as a tensor's has to be, whatever type it will be.
    made = [torch.empty(n, dtype=torch.uint8).numpy() for n in sizes.tolist()] if parts is None else list(parts)
    for pieces in _chunks(made, chunk_bytes):
        lengths = [len(piece) for piece in pieces]
        if parts is None:
            staged = torch.empty(sum(lengths), dtype=torch.uint8, device=device)
            dist.broadcast(staged, src=0)
            for piece, came in zip(pieces, staged.cpu().split(lengths), strict=True):
                piece[:] = came.numpy()
        else:
            dist.broadcast(torch.from_numpy(np.concatenate(pieces)).to(device), src=0)
        tick()
    return made


def _chunks(parts: Sequence[Bytes], size: int) -> Iterator[list[Bytes]]:
    """Yields all bytes in order, in lists of views that have ``size`` bytes together, the last one fewer."""
    pieces: list[Bytes] = []
    free = size
    for part in parts:
        while len(part):
            pieces.append(part[:free])
            part = part[free:]
            free -= len(pieces[-1])
            if not free:
                yield pieces
                pieces, free = [], size
    if pieces:
        yield pieces


class _Pickler(pickle.Pickler):
    """Takes tensors for views of arrays of bytes, which pickle's fifth protocol hands on as they are."""

    def __init__(self, file: io.BytesIO, buffer_callback: Callable[[pickle.PickleBuffer], Any]) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._storages: dict[int, Bytes] = {}

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not Tensor or not _is_plain(value):
            return NotImplemented
        storage = value.untyped_storage()
        if storage.data_ptr() not in self._storages or not storage.nbytes():
            self._storages[storage.data_ptr()] = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        content = self._storages[storage.data_ptr()]
        return _view, (content, value.dtype, value.storage_offset(), value.shape, value.stride(), value.requires_grad)


def _is_plain(tensor: Tensor) -> bool:
    """Returns whether type, shape and strides say all there is to say about how to read its storage."""
    dense = tensor.layout == torch.strided and not tensor.is_quantized
    return dense and tensor.device.type == "cpu" and tensor.is_leaf and not tensor.is_conj() and not tensor.is_neg()


def _view(
    content: Bytes, dtype: torch.dtype, offset: int, shape: torch.Size, stride: tuple[int, ...], requires_grad: bool
) -> Tensor:
    storage = torch.from_numpy(content).untyped_storage()
    return torch.empty(0, dtype=dtype).set_(storage, offset, shape, stride).requires_grad_(requires_grad)
