"""A cheap look at many image files, so that a broken one is not first met in the middle of training."""

from __future__ import annotations

import io
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.data.unreadable import StorageError
from engine.errors import UserError

if TYPE_CHECKING:
    from engine.data.shards import Shards

LOOKED_AT = 2000
"""Most files that are opened; of more, so many at even distances."""
THREADS = 16
"""They wait for a network's file system, and compute next to nothing."""

PAUSES = (0.1, 1.0)
"""Seconds before another try where the storage fails."""

T = TypeVar("T")


def look_at_some(count: int, look: Callable[[int], T]) -> dict[int, T]:
    """Returns what ``look`` says of the numbers below ``count``, or of :data:`LOOKED_AT` of them.

    Opening with Pillow reads some hundred bytes of a file and decodes nothing: what is damaged further in is found when
    it is used.
    """
    some = min(count, LOOKED_AT)
    places = [place * count // some for place in range(some)]
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(places, pool.map(look, places), strict=True))


class InFiles(ABC):
    """N images that lie in files, each in one of its own or packed in shards, as checks see them."""

    shards: Shards | None = None
    missing = ""
    """What a list names and is not there, a line each."""
    absent = 0
    """How many these are."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def path(self, index: int) -> Path:
        """Returns what messages call the file of an image."""

    @abstractmethod
    def image(self, index: int) -> Any:
        """Returns an image. Raises UserError if it cannot be read; its pixels may do, too."""

    def file_size(self, index: int) -> int:
        """Returns the bytes of a file; -1 if it is not there, as is missed when it is read."""
        if self.shards is not None:
            return self.shards.piece(index)[2]
        try:
            return self.path(index).stat().st_size
        except OSError:
            return -1

    def content(self, index: int) -> bytes:
        """Returns what is in a file. Raises OSError or UserError if it cannot be read."""
        return self.path(index).read_bytes() if self.shards is None else self.shards.read(self.shards.piece(index))

    def source(self, index: int) -> Path | BinaryIO:
        """Returns where the header of an image can be read."""
        return self.path(index) if self.shards is None else io.BytesIO(self.content(index))

    def fault(self, index: int) -> str:
        """Returns what whoever reads an image says of it, also after some tries if the storage fails; else nothing."""
        for pause in (*PAUSES, 0.0):
            try:
                self.image(index).pixels()
                return ""
            except StorageError as error:
                fault = str(error)
                time.sleep(pause)
            except UserError as error:
                return str(error)
        return fault

    @property
    def digests(self) -> NDArray[np.int64] | None:
        """Returns digests of what is in each file, (N,), if they are known."""
        return None if self.shards is None else self.shards.digests
