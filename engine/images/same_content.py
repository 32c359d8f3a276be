"""Files that are copies of each other, by their content: by digests that are known, else by those of equal size alone,
and of not too many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.data.file_check import THREADS
from engine.errors import UserError

SIZED = 20_000
"""Most files of a split that are asked for their size; of more, so many at random."""
DIGESTED = 20_000
"""Most files that are read."""
READ_BYTES = 128 * 2**20
"""Most bytes that are read."""

T = TypeVar("T", bound=Hashable)


class Files(Protocol):
    """Files with numbers."""

    def __len__(self) -> int: ...

    @property
    def digests(self) -> NDArray[np.int64] | None:
        """Returns digests of what is in each, (N,), if they are known."""
        ...

    def file_size(self, index: int) -> int:
        """Returns its bytes; -1 if it is not there."""
        ...

    def content(self, index: int) -> bytes:
        """Raises OSError or UserError if it cannot be read."""
        ...


@dataclass(frozen=True)
class Copies:
    """Files with the same content, linked or copied, under whatever names."""

    pairs: list[tuple[int, int]]
    """Numbers of a file, and of one that it is a copy of; by the first, which occurs once."""
    part: bool
    """Whether there were too many files to look at all of them: there may be more, and likely are."""

    def count(self, of: int | None = None) -> str:
        """Says how many there are, ``of`` so many."""
        counted = f"{len(self.pairs)} of {of}" if of is not None else str(len(self.pairs))
        return f"at least {counted} (not all were compared)" if self.part else counted


def copies_between(known: Files, other: Files) -> Copies:
    """Finds files of ``other`` that are in ``known`` as well; pairs are numbers in ``other`` and in ``known``.

    Where there are too many files, some are looked at, the same ones each time: a split that was copied into another
    is found in all likelihood, a single file may not be.
    """
    first = len(known)
    if known.digests is not None and other.digests is not None:
        digests = np.concatenate([known.digests, other.digests])
        return Copies(_pairs_between(_same_digest(digests, np.arange(len(digests)) >= first), first), part=False)
    chosen = np.concatenate([_some(first), _some(len(other)) + first])

    def of(number: int) -> tuple[Files, int]:
        return (known, number) if number < first else (other, number - first)

    same, all_read = _same_content(chosen, chosen >= first, of)
    return Copies(_pairs_between(same, first), not all_read or len(chosen) < first + len(other))


def _pairs_between(same: list[list[int]], first: int) -> list[tuple[int, int]]:
    return sorted((number - first, numbers[0]) for numbers in same for number in numbers if number >= first)


def copies_across(files: Files, labels: NDArray[np.integer]) -> Copies:
    """Finds files with the same content and different ``labels``, (N,); otherwise like :func:`copies_between`."""
    chosen, all_read = _some(len(files)), True
    if files.digests is not None:
        chosen, same = np.arange(len(files)), _same_digest(files.digests, labels)
    else:
        same, all_read = _same_content(chosen, labels[chosen], lambda number: (files, number))
    pairs = [(i, next(j for j in numbers if labels[j] != labels[i])) for numbers in same for i in numbers[:1]]
    return Copies(sorted(pairs), not all_read or len(chosen) < len(files))


def _some(count: int) -> NDArray[np.int64]:
    """Numbers below ``count``: all, or so many at random."""
    return np.sort(np.random.default_rng(0).choice(count, min(count, SIZED), replace=False, shuffle=False))


def _same_content(
    numbers: NDArray[np.int64], groups: NDArray, of: Callable[[int], tuple[Files, int]]
) -> tuple[list[list[int]], bool]:
    """Numbers of files that share their content and are of several groups (N,), and whether all could be read.

    ``of`` says whose file a number is, and which.
    """

    def size(number: int) -> int:
        files, own = of(number)
        return files.file_size(own)

    def digest(place: int) -> bytes:
        files, own = of(int(numbers[place]))
        try:
            return hashlib.blake2b(files.content(own)).digest()
        except (OSError, UserError):  # whoever reads it tells
            return str(place).encode()  # no other file's

    with ThreadPoolExecutor(THREADS) as pool:
        slices = np.array_split(numbers, 4 * THREADS)
        sized = pool.map(lambda part: [size(number) for number in part.tolist()], slices)
        places, all_read = _to_read(np.array([value for part in sized for value in part], np.int64), groups)
        digests = list(pool.map(digest, places))
    return [numbers[same].tolist() for same in _of_several_groups(zip(places, digests, strict=True), groups)], all_read


def _same_digest(digests: NDArray[np.int64], groups: NDArray) -> list[list[int]]:
    """Numbers of files that have one digest and are of several groups, both (N,)."""
    ordered = np.sort(digests)
    numbers = np.flatnonzero(np.isin(digests, ordered[1:][ordered[1:] == ordered[:-1]]))
    return _of_several_groups(zip(numbers.tolist(), digests[numbers].tolist(), strict=True), groups)


def _of_several_groups(contents: Iterable[tuple[int, T]], groups: NDArray) -> list[list[int]]:
    """Places with one content that are of several groups."""
    places = dict[T, list[int]]()
    for place, content in sorted(contents):
        places.setdefault(content, []).append(place)
    return [same for same in places.values() if len(set(groups[same].tolist())) > 1]


def _to_read(sizes: NDArray[np.int64], groups: NDArray) -> tuple[list[int], bool]:
    """Places of files of one size that are of several groups, as many as may be read, and whether these are all."""
    order = np.argsort(sizes, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1)
    runs = [run for run in runs if len(run) > 1 and sizes[run[0]] > 0 and (groups[run] != groups[run[0]]).any()]
    if not runs:
        return [], True
    random = np.random.default_rng(0)
    places = np.concatenate([random.permutation(runs[number]) for number in random.permutation(len(runs))])
    fits = np.cumsum(sizes[places]) <= READ_BYTES
    fits[DIGESTED:] = False
    return places[fits].tolist(), bool(fits.all())
