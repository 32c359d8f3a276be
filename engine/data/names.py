"""Many names, such as paths of files, in two arrays instead of as many Python objects."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 16
"""Names that are copied at a time: this bounds the memory that copying takes."""


class Names(Sequence[str]):
    """N names: their bytes one after another, and where each ends.

    Processes that are forked share them, since reading makes no mark on them as it does on Python objects. Names may
    have any bytes, as those of files do; they are decoded as Python decodes the latter.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Takes one name after the other, so that no list of them need exist."""
        content, ends = bytearray(), array("q", [0])
        for name in names:
            content += os.fsencode(name)
            ends.append(len(content))
        self._content: NDArray[np.uint8] = np.frombuffer(content, np.uint8)
        self._ends: NDArray[np.int64] = np.frombuffer(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...

    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        place = range(len(self))[index]  # IndexError, by which an iteration over a sequence ends
        return os.fsdecode(self._content[self._ends[place] : self._ends[place + 1]].tobytes())

    @property
    def nbytes(self) -> int:
        """Returns the memory that they take."""
        return self._content.nbytes + self._ends.nbytes

    def take(self, indices: NDArray[np.int64]) -> Names:
        """Returns the names with these numbers, in their order, in memory of their own."""
        starts, lengths = self._ends[indices], np.diff(self._ends)[indices]
        taken = Names()
        taken._ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        taken._content = np.empty(taken._ends[-1], np.uint8)
        for first in range(0, len(indices), BLOCK):
            block = slice(first, first + BLOCK)
            begin, end = taken._ends[first], taken._ends[min(first + BLOCK, len(indices))]
            shifts = np.repeat(starts[block] - taken._ends[:-1][block], lengths[block])
            taken._content[begin:end] = self._content[np.arange(begin, end) + shifts]
        return taken
