"""What is known of a split's images: classes, sizes and boxes, as arrays that worker processes share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.images.lazy_image import LazyImage
from engine.look_alike import told_apart


@dataclass(frozen=True)
class Annotations:
    """N images with T boxes of C classes; those of image i are the rows from ``starts[i]`` to ``starts[i + 1]``."""

    classes: list[str]
    """Names; labels are places in this list."""
    category_ids: list[int | str]
    """What the data set itself calls each class."""
    image_ids: NDArray
    """(N,) what the data set itself calls each image: whole numbers or texts."""
    sizes: NDArray[np.int64]
    """(N, 2) widths and heights in pixels."""
    starts: NDArray[np.int64]
    """(N + 1,)."""
    boxes: NDArray[np.float64]
    """(T, 4) xyxy in pixels; the part within the image has an area, but they may reach out of it."""
    labels: NDArray[np.int64]
    """(T,) classes from 0 on."""
    crowd: NDArray[np.bool_]
    """(T,) regions with many objects of a class: ignored in training, handled by the evaluator."""
    areas: NDArray[np.float64]
    """(T,) what counts as small, medium or large: the data set's `area`, else that of the box."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.sizes)

    @property
    def names(self) -> dict[int | str, str]:
        """The classes' names by the ids that the data set has for them."""
        return dict(zip(self.category_ids, self.classes, strict=True))

    def of(self, index: int) -> slice:
        """Returns the rows of an image."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))


class AnnotatedImages(Protocol):
    """A split: images and what is on them."""

    @property
    def annotations(self) -> Annotations: ...

    def __len__(self) -> int: ...

    @property
    def wait_seconds(self) -> float:
        """Returns the time in which this process has waited for files."""
        ...

    def announce(self, indices: Iterable[int], threads: int) -> None:
        """Says which images this process will ask for next: where they are files, threads begin to read them."""
        ...

    def image(self, index: int) -> LazyImage:
        """Returns the image as 8-bit RGB."""
        ...

    def name(self, index: int) -> str:
        """Returns what a person would call the image."""
        ...


def digest(images: AnnotatedImages) -> str:
    """Returns twelve hexadecimal digits that stand for the images' names, in order, and their annotations."""
    known, sha = images.annotations, hashlib.sha256()
    for index in range(len(images)):
        sha.update(images.name(index).encode(errors="surrogateescape") + b"\0")
    for boxes in (known.boxes, known.areas):
        sha.update(boxes.round(2).tobytes())  # drawn ones may differ in their last bits between machines
    for array in (known.sizes, known.starts, known.labels, known.crowd):
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:12]


def other_names(theirs: Mapping[Any, str], ours: Mapping[Any, str], there: str) -> tuple[list[Any], str]:
    """Returns the ids of classes that have no or another name in one of both, and some of them in words."""
    ids = [i for i in {**theirs, **ours} if theirs.get(i) != ours.get(i)]
    told = ((i, *told_apart(theirs.get(i), ours.get(i))) for i in ids[:5])
    return ids, ", ".join(f"{i}: {their} {there}, {our} here" for i, their, our in told)


def in_order(images: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the order that brings boxes of one image together, for the image of each (T,), and ``starts``."""
    order = np.argsort(images, kind="stable")
    return order, np.searchsorted(images[order], np.arange(count + 1))
