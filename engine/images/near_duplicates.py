"""Images that show the same and are not the same files: saved again, scaled or slightly changed, by perceptual hash.

The hash is that of the lowest frequencies (DCT), 64 bits; it is read from the pixels, so that whatever cannot be
decoded is found too.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from engine.data.file_check import THREADS
from engine.errors import UserError
from engine.images.lazy_image import LazyImage

HASHED = 2000
"""Most images of a split that are decoded; of more, so many at even distances."""
NEAR = 4
"""Bits in which two images that show the same may differ."""
LEAST_SIDE = 32
"""Pixels of a side; the hashes of smaller images say little."""
LEAST_BITS = 8
"""Bits, set and not set, that a hash has of an image with something to see."""
_ROWS = 256
_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


class Pictures(Protocol):
    """A split's images."""

    def __len__(self) -> int: ...

    def image(self, index: int, /) -> LazyImage: ...

    def name(self, index: int, /) -> str: ...


@runtime_checkable
class PicturesInFiles(Pictures, Protocol):
    """A split's images, each in a file."""

    def content(self, index: int, /) -> bytes: ...


class Hashed(NamedTuple):
    """What was seen of a split."""

    numbers: NDArray[np.int64]
    """Images with a hash that says something, (N,)."""
    hashes: NDArray[np.uint8]
    """(N, 8)."""
    faults: dict[int, str]
    """What is wrong with images that cannot be decoded, by number."""
    looked_at: int


def hash_images(images: Pictures) -> Hashed:
    """Decodes images, at most :data:`HASHED`, and hashes those that are large enough."""
    import imagehash

    def look(index: int) -> NDArray[np.uint8] | str | None:
        try:
            image = images.image(index).pillow()
        except UserError as error:
            return str(error)
        if min(image.size) < LEAST_SIDE:
            return None
        bits = imagehash.phash(image).hash
        return np.packbits(bits) if LEAST_BITS <= bits.sum() <= 64 - LEAST_BITS else None

    some = min(len(images), HASHED)
    places = [place * len(images) // some for place in range(some)]
    with ThreadPoolExecutor(THREADS) as pool:
        seen = dict(zip(places, pool.map(look, places), strict=True))
    faults = {index: found for index, found in seen.items() if isinstance(found, str)}
    hashes = {index: found for index, found in seen.items() if isinstance(found, np.ndarray)}
    rows = np.array(list(hashes.values()), np.uint8).reshape(-1, 8)
    return Hashed(np.array(list(hashes), np.int64), rows, faults, some)


def near_pairs(known: Hashed, other: Hashed) -> list[tuple[int, int]]:
    """Returns numbers of images of ``other``, each with the most similar one of ``known`` that shows the same."""
    pairs: list[tuple[int, int]] = []
    if not len(known.numbers):
        return pairs
    for first in range(0, len(other.numbers), _ROWS):
        rows = other.hashes[first : first + _ROWS]
        distances = _ONES[rows[:, None, :] ^ known.hashes[None]].sum(axis=2, dtype=np.int64)
        nearest = distances.argmin(axis=1)
        for row in np.flatnonzero(distances.min(axis=1) <= NEAR):
            pairs.append((int(other.numbers[first + row]), int(known.numbers[nearest[row]])))
    return pairs


def splits_alike(hashed: Mapping[str, Hashed]) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Returns the pairs of each two splits, by their names: the later one and the earlier one."""
    names = list(hashed)
    return {
        (later, earlier): near_pairs(hashed[earlier], hashed[later])
        for place, later in enumerate(names)
        for earlier in names[:place]
    }
