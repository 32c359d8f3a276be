"""Files that are copies of each other, by their content: digests of those of equal size alone, and of not too many."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.data.file_check import THREADS

SIZED = 20_000
"""Most files of a split that are asked for their size; of more, so many at random."""
DIGESTED = 20_000
"""Most files that are read."""
READ_BYTES = 128 * 2**20
"""Most bytes that are read."""


class Files(Protocol):
    """Files with numbers."""

    def __len__(self) -> int: ...

    def path(self, index: int) -> Path: ...


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
    chosen = np.concatenate([_some(first), _some(len(other)) + first])
    same, all_read = _same_content(
        chosen, chosen >= first, lambda number: known.path(number) if number < first else other.path(number - first)
    )
    pairs = [(number - first, numbers[0]) for numbers in same for number in numbers if number >= first]
    return Copies(sorted(pairs), not all_read or len(chosen) < first + len(other))


def copies_across(files: Files, labels: NDArray[np.integer]) -> Copies:
    """Finds files with the same content and different ``labels``, (N,); otherwise like :func:`copies_between`."""
    chosen = _some(len(files))
    same, all_read = _same_content(chosen, labels[chosen], files.path)
    pairs = [(i, next(j for j in numbers if labels[j] != labels[i])) for numbers in same for i in numbers[:1]]
    return Copies(sorted(pairs), not all_read or len(chosen) < len(files))


def _some(count: int) -> NDArray[np.int64]:
    """Numbers below ``count``: all, or so many at random."""
    return np.sort(np.random.default_rng(0).choice(count, min(count, SIZED), replace=False, shuffle=False))


def _same_content(
    numbers: NDArray[np.int64], groups: NDArray, path: Callable[[int], Path]
) -> tuple[list[list[int]], bool]:
    """Numbers of files that share their content and are of several groups (N,), and whether all could be read."""

    def size(number: int) -> int:
        try:
            return os.stat(path(number)).st_size
        except OSError:  # whoever reads it tells
            return -1

    def digest(place: int) -> bytes:
        try:
            return hashlib.blake2b(path(int(numbers[place])).read_bytes()).digest()
        except OSError:
            return str(place).encode()  # no other file's

    with ThreadPoolExecutor(THREADS) as pool:
        slices = np.array_split(numbers, 4 * THREADS)
        sized = pool.map(lambda part: [size(number) for number in part.tolist()], slices)
        places, all_read = _to_read(np.array([value for part in sized for value in part], np.int64), groups)
        digests = list(pool.map(digest, places))
    by_content: dict[bytes, list[int]] = {}
    for place, content in sorted(zip(places, digests, strict=True)):
        by_content.setdefault(content, []).append(place)
    same = [places for places in by_content.values() if len(set(groups[places].tolist())) > 1]
    return [numbers[places].tolist() for places in same], all_read


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
