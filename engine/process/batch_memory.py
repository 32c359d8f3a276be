"""Batches on their way from worker processes: each in one piece of memory, which forked workers use again and again.

What torch's own loader does instead, a file in shared memory for every tensor, which the other process is handed, costs
as much as a tenth of reading the images.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

ALIGNMENT = 64
"""Bytes, of each tensor in a batch's memory."""


@dataclass(frozen=True)
class Piece:
    """Stands for a tensor of a batch, and says where in the batch's memory it lies."""

    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """Returns where the next byte lies."""
        return self.start + self.dtype.itemsize * math.prod(self.shape)

    def of(self, memory: Tensor) -> Tensor:
        """Returns the tensor, a view of ``memory``, uint8 (bytes,)."""
        return memory[self.start : self.end].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class Parcel:
    """A batch, as a worker sends it."""

    memory: Tensor | int
    """Its memory, which other processes map; or the number of the place in :class:`BatchMemory`."""
    content: Any
    """The batch, with a :class:`Piece` for each tensor."""

    def pin_memory(self) -> Parcel:
        """Returns the same in page-locked memory, as torch's loader asks for it."""
        assert isinstance(self.memory, Tensor)
        return Parcel(self.memory.pin_memory(), self.content)


class BatchMemory:
    """Places for batches, which this process shares with workers that it forks.

    A worker fills a place, this process uses the batch, and once nothing refers to any tensor of it the place is free
    for the worker's next one. Batches that find no place, or are larger than one, are sent in memory of their own.

    Args:
        workers: Worker processes, which count from 0.
        places: Of each.
        size: Bytes of a place. They cost nothing until they are used.
    """

    def __init__(self, workers: int, places: int, size: int) -> None:
        self._places, self._size = places, size
        self._memory = mmap.mmap(-1, workers * places * size)
        self._taken = mmap.mmap(-1, workers * places)

    def take(self, worker: int, size: int) -> tuple[int, Tensor] | None:
        """Returns a free place for ``size`` bytes, by its number, and its memory; None if there is none."""
        first = worker * self._places
        place = self._taken.find(b"\0", first, first + self._places)
        if size > self._size or place < 0:
            return None
        self._taken[place] = 1
        return place, torch.from_numpy(self._array(place))

    def lend(self, place: int) -> Tensor:
        """Returns the memory of a place, which is free again when the last view of it is gone."""
        array = self._array(place)
        weakref.finalize(array, _give_back, self._taken, place, os.getpid()).atexit = False
        return torch.from_numpy(array)

    def _array(self, place: int) -> Any:
        return np.frombuffer(self._memory, np.uint8, self._size, place * self._size)


def _give_back(taken: mmap.mmap, place: int, borrower: int) -> None:
    if os.getpid() == borrower:  # a fork of it has views, too
        taken[place] = 0


def pack(batch: Any, memory: BatchMemory | None, worker: int) -> Parcel:
    """Copies a batch, any nesting of lists and dicts with tensors on the CPU, into one piece of shared memory.

    Raises:
        RuntimeError: there is no room for memory of its own, as torch says it.
    """
    tensors, end = list[tuple[Piece, Tensor]](), 0

    def placed(tensor: Tensor) -> Piece:
        nonlocal end
        piece = Piece(-(-end // ALIGNMENT) * ALIGNMENT, tensor.dtype, tuple(tensor.shape))
        tensors.append((piece, tensor))
        end = piece.end
        return piece

    content = tree_map_only(Tensor, placed, batch)
    own = memory.take(worker, end) if memory is not None else None
    place, target = own or (None, torch.empty(end, dtype=torch.uint8).share_memory_())
    for piece, tensor in tensors:
        piece.of(target).copy_(tensor)
    return Parcel(target if place is None else place, content)


def unpack(parcel: Parcel, memory: BatchMemory | None) -> Any:
    """Returns the batch. Its tensors are views of the parcel's memory."""
    where = parcel.memory
    if isinstance(where, int):
        assert memory is not None
        where = memory.lend(where)
    return tree_map_only(Piece, lambda piece: piece.of(where), parcel.content)
