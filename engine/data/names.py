"""Many names, such as paths of files, in two arrays instead of as many Python objects."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 14
"""Names that are copied at a time: this bounds the memory that copying takes."""
MOST_PADDED = 3
"""How many times their bytes names may take while they are sorted."""


class Names(Sequence[str]):
    """N names without NUL: their bytes one after another, a NUL behind each, and where each starts.

    Processes that are forked share them, since reading makes no mark on them as it does on Python objects. Names may
    have any other bytes, as those of files do; they are decoded as Python decodes the latter.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Takes a block of names after the other, so that no list of all need exist."""
        content, ends, names = bytearray(), [np.zeros(1, np.int64)], iter(names)
        while block := list(islice(names, BLOCK)):
            encoded = os.fsencode("\0".join(block) + "\0")
            ends.append(np.flatnonzero(np.frombuffer(encoded, np.uint8) == 0) + (len(content) + 1))
            if len(ends[-1]) != len(block):
                raise ValueError(f"a name has a NUL: {next(name for name in block if chr(0) in name)!r}")
            content += encoded
        self.content: NDArray[np.uint8] = np.frombuffer(content, np.uint8)
        """The bytes of all."""
        self.starts: NDArray[np.int64] = np.concatenate(ends)
        """(N + 1,) where each starts, and where one more would."""

    @classmethod
    def of(cls, content: NDArray[np.uint8], starts: NDArray[np.int64]) -> Names:
        """Returns the names that these arrays are."""
        names = cls()
        names.content, names.starts = content, starts
        return names

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...

    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        place = range(len(self))[index]  # IndexError, by which an iteration over a sequence ends
        return os.fsdecode(self.content[self.starts[place] : self.starts[place + 1] - 1].tobytes())

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), BLOCK):
            begin, end = self.starts[first], self.starts[min(first + BLOCK, len(self))]
            yield from os.fsdecode(self.content[begin : end - 1].tobytes()).split("\0")

    @property
    def nbytes(self) -> int:
        """Returns the memory that they take."""
        return self.content.nbytes + self.starts.nbytes

    def in_order(self) -> Names:
        """Returns them as Python sorts them, without an object for each."""
        if all(one <= next_one for one, next_one in pairwise(self)):
            return self
        lengths = np.diff(self.starts)
        width = int(lengths.max())
        if width * len(self) > MOST_PADDED * len(self.content) or not self._is_utf8():  # of which bytes sort like texts
            return Names(sorted(self))
        padded = np.zeros((len(self), width), np.uint8)
        for first in range(0, len(self), BLOCK):
            block = slice(first, first + BLOCK)
            begin, end = self.starts[first], self.starts[min(first + BLOCK, len(self))]
            rows = np.repeat(np.arange(len(lengths[block])), lengths[block])
            padded[block][rows, np.arange(begin, end) - self.starts[:-1][block][rows]] = self.content[begin:end]
        return self.take(np.argsort(padded.view(f"S{width}")[:, 0], kind="stable"))

    def _is_utf8(self) -> bool:
        try:
            for first in range(0, len(self), BLOCK):
                self.content[self.starts[first] : self.starts[min(first + BLOCK, len(self))]].tobytes().decode()
        except UnicodeDecodeError:
            return False
        return True

    def take(self, indices: NDArray[np.int64]) -> Names:
        """Returns the names with these numbers, in their order, in memory of their own."""
        old, lengths = self.starts[indices], np.diff(self.starts)[indices]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        content = np.empty(starts[-1], np.uint8)
        for first in range(0, len(indices), BLOCK):
            block = slice(first, first + BLOCK)
            begin, end = starts[first], starts[min(first + BLOCK, len(indices))]
            shifts = np.repeat(old[block] - starts[:-1][block], lengths[block])
            content[begin:end] = self.content[np.arange(begin, end) + shifts]
        return Names.of(content, starts)
