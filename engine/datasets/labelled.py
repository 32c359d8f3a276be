"""Labelled images: what every source of data offers, and those that lie in files or in memory."""

from __future__ import annotations

import hashlib
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.file_check import InFiles, look_at_some
from engine.data.index import FromIndex, Listed, listed
from engine.data.names import Names
from engine.data.read_ahead import FileReader
from engine.images.lazy_image import LazyImage, load_image


class LabelledImages(ABC):
    """One split of a data set."""

    def __init__(self, classes: list[str], labels: NDArray[np.integer]) -> None:
        """
        Args:
            classes: names of the classes, by number; the same in all splits.
            labels: class of each image, (N,) int64; or, where it may show several, (N, C) uint8: 1 for those it shows.
        """
        self.classes = classes
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def multi_label(self) -> bool:
        """Returns whether an image may show several classes, or none."""
        return self.labels.ndim == 2

    @abstractmethod
    def subset(self, indices: NDArray[np.int64]) -> Any:
        """Returns the images with these numbers, in their order, as the same type."""

    @abstractmethod
    def image(self, index: int) -> LazyImage:
        """Returns an image as 8-bit RGB. Raises UserError if it cannot be read; its pixels may do, too."""

    @property
    def wait_seconds(self) -> float:
        """Returns the time in which this process has waited for files."""
        return 0.0

    def announce(self, indices: Iterable[int], threads: int) -> None:
        """Says which images this process will ask for next: where they are files, threads begin to read them."""
        return

    @abstractmethod
    def name(self, index: int) -> str:
        """Returns what a report calls an image: its path below the data set's root, or its number."""

    def place(self, index: int) -> str:
        """Returns the name without the data set's root, wherever that lies."""
        return self.name(index)

    @property
    def places(self) -> Names:
        """Returns what :meth:`place` returns, of all images."""
        return Names(map(self.place, range(len(self))))

    @cached_property
    def digest_of_names(self) -> str:
        """Returns a digest of the places of all images, in whatever order."""
        return hashlib.sha256(self.places.in_order().content[:-1].data).hexdigest()[:16]

    @abstractmethod
    def fingerprint(self, index: int) -> int:
        """Returns a number that an image with another content rarely has: the size of its file, or a checksum."""


def some(names: list[str]) -> str:
    """Formats the first ten of them, for a message."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def class_counts(images: LabelledImages) -> NDArray[np.int64]:
    """Counts the images of each class, (C,); with several labels an image counts for each of them."""
    if images.multi_label:
        return images.labels.sum(axis=0, dtype=np.int64)
    return np.bincount(images.labels, minlength=len(images.classes)).astype(np.int64)


def odd_labels(train: LabelledImages, val: LabelledImages) -> list[str]:
    """Returns what is possible of the labels of both, and seldom meant."""
    if train.multi_label:
        return []
    if len(train.classes) == 1:
        return [f"data: {train.classes[0]} is the only class: there is nothing to learn, and any answer is right"]
    if empty := [train.classes[number] for number in np.flatnonzero(class_counts(train) == 0)]:
        return [f"data: no training images of {len(empty)} of {len(train.classes)} classes: {some(empty)}"]
    there = np.unique(val.labels)
    if len(there) > 1 or len(val) < 2:
        return []
    return [f"data: all {len(val)} images of val are of one class, {val.classes[there[0]]}, of {len(val.classes)}"]


def digests(images: LabelledImages) -> tuple[str, str]:
    """Returns digests of the names of all images, in whatever order, and of all that decides what a run sees.

    The latter are names, labels and fingerprints, in their order; of many images the fingerprints of some. Neither
    depends on where the data lie.
    """
    fingerprints = look_at_some(len(images), images.fingerprint)
    seen = hashlib.sha256(images.places.content[:-1].data)
    seen.update(np.ascontiguousarray(images.labels).data)
    seen.update(repr(fingerprints).encode())
    return images.digest_of_names, seen.hexdigest()[:16]


class FileImages(LabelledImages, FromIndex, InFiles):
    """Images in files below one folder: no Python object for any of them, but arrays that processes share.

    They are called by their paths as listed: below ``root``, unless a path was given as an absolute one.
    """

    def __init__(self, root: Path, classes: list[str], labels: NDArray[np.integer], paths: Iterable[str]) -> None:
        super().__init__(classes, labels)
        self.root = root
        self.names = paths if isinstance(paths, Names) else Names(paths)
        self._prefix = os.path.join(root, "")
        self._reader = FileReader()
        assert len(self.names) == len(labels)

    @classmethod
    def of(cls, known: Listed) -> FileImages:
        arrays, facts = known.arrays, known.facts
        names = Names.of(arrays["content"], arrays["starts"])
        images = cls(Path(facts["folder"]), facts["classes"], arrays["labels"], names)
        images.missing, images.absent, images.index = facts["missing"], facts["absent"], known
        images.digest_of_names = facts["digest_of_names"]
        return images

    def subset(self, indices: NDArray[np.int64]) -> FileImages:
        return FileImages(self.root, self.classes, self.labels[indices], self.names.take(indices))

    def path(self, index: int) -> Path:
        """Returns the file of an image."""
        return self.root / self.name(index)

    def image(self, index: int) -> LazyImage:
        path = self.path(index)
        return load_image(path, self._reader.read(path))

    @property
    def wait_seconds(self) -> float:
        return self._reader.wait_seconds

    def announce(self, indices: Iterable[int], threads: int) -> None:
        self._reader.announce(map(self.path, indices), threads)

    def name(self, index: int) -> str:
        return self.names[index]

    def place(self, index: int) -> str:
        return self.name(index).removeprefix(self._prefix)

    @property
    def places(self) -> Names:
        if not (self.names.content[self.names.starts[:-1]] == ord("/")).any():
            return self.names
        return Names(name.removeprefix(self._prefix) for name in self.names)

    def fingerprint(self, index: int) -> int:
        return self.file_size(index)


def indexed(root: Path, key: Any, make: Callable[[list[str]], FileImages]) -> FileImages:
    """Returns the images that ``make`` lists, or has listed before, see :func:`engine.data.index.listed`.

    Args:
        root: The folder of the data.
        key: All that decides what ``make`` finds besides, as JSON has it.
        make: Is given a list that takes the paths of all files and folders in which it looks.
    """

    def found() -> Listed:
        watched = list[str]()
        images = make(watched)
        facts = {
            "folder": os.fspath(images.root),
            "classes": images.classes,
            "missing": images.missing,
            "absent": images.absent,
            "digest_of_names": images.digest_of_names,
        }
        arrays: dict[str, NDArray] = {"content": images.names.content, "starts": images.names.starts}
        arrays["labels"] = images.labels
        return Listed(arrays, facts, watched, keep=not images.missing)

    return FileImages.of(listed(root, key, found))


class ArrayImages(LabelledImages):
    """Images that are one array: greyscale (N, H, W) or RGB (N, H, W, 3), 0 to 255. A subset's are renamed."""

    def __init__(self, classes: list[str], labels: NDArray[np.integer], pixels: NDArray[np.uint8]) -> None:
        super().__init__(classes, labels)
        self._pixels = pixels

    def subset(self, indices: NDArray[np.int64]) -> ArrayImages:
        return ArrayImages(self.classes, self.labels[indices], self._pixels[indices])

    def image(self, index: int) -> LazyImage:
        pixels = self._pixels[index]
        return LazyImage.of(pixels if pixels.ndim == 3 else np.stack([pixels] * 3, 2))

    def name(self, index: int) -> str:
        return str(index)

    def fingerprint(self, index: int) -> int:
        return zlib.crc32(self._pixels[index].tobytes())


def open_digits(split: str) -> ArrayImages:
    """Opens Scikit-learn's 1,797 digits: 1,437 for ``train``, 360 for ``val``.

    Every fifth image, after sorting by class and otherwise in scikit-learn's order, is held out: of each class its
    share.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    held_out = np.sort(np.argsort(digits.target, kind="stable")[::5])
    chosen = held_out if split == "val" else np.delete(np.arange(len(digits.target)), held_out)
    pixels = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8)
    return ArrayImages([str(name) for name in digits.target_names], digits.target[chosen].astype(np.int64), pixels)
