"""Pictures that lie in files, whatever listed them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.data.names import Names
from engine.images.image_io import read_picture


class FilePictures:
    """Pictures in files below one folder: no Python object for any of them, but arrays that processes share."""

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
        self._names = paths if isinstance(paths, Names) else Names(paths)
        assert len(self._names) == len(labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def subset(self, indices: NDArray[np.int64]) -> FilePictures:
        """The pictures with these numbers, in their order."""
        return FilePictures(self.root, self.classes, self.labels[indices], self._names.take(indices))

    def path(self, index: int) -> Path:
        return self.root / self.name(index)

    def picture(self, index: int) -> Image.Image:
        return read_picture(self.path(index))

    def name(self, index: int) -> str:
        """Its path as listed: below the root, unless it was given as an absolute one."""
        return self._names[index]
