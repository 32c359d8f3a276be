"""Pictures that lie in files, whatever listed them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from copy import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.pictures import read_picture


class FilePictures:
    """Pictures in files below one folder.

    Paths are kept as one array of bytes, not as Python objects: reading those in worker processes would copy them.
    """

    def __init__(self, root: Path, classes: list[str], labels: NDArray[np.integer], paths: Iterable[str]) -> None:
        """
        Args:
            root: what relative paths start from.
            labels: (N,) int64 class numbers, or (N, C) uint8 of 0 and 1.
            paths: of the N files.
        """
        self.classes = classes
        self.labels = labels
        self.root = root
        names = [os.fsencode(path) for path in paths]
        assert len(names) == len(labels)
        self._names = np.frombuffer(b"".join(names), np.uint8)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._starts = np.concatenate([np.zeros(1, np.int64), self._ends])[:-1]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def subset(self, indices: NDArray[np.int64]) -> FilePictures:
        """The pictures with these numbers, in their order."""
        chosen = copy(self)
        chosen.labels, chosen._starts, chosen._ends = self.labels[indices], self._starts[indices], self._ends[indices]
        return chosen

    def path(self, index: int) -> Path:
        return self.root / self.name(index)

    def picture(self, index: int) -> Image.Image:
        return read_picture(self.path(index))

    def name(self, index: int) -> str:
        """Its path as listed: below the root, unless it was given as an absolute one."""
        return os.fsdecode(self._names[self._starts[index] : self._ends[index]].tobytes())
