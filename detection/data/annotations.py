"""What is known of a split's pictures: classes, sizes and boxes, as arrays that worker processes share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Annotations:
    """N pictures with T boxes of C classes; those of picture i are the rows from ``starts[i]`` to ``starts[i + 1]``."""

    classes: list[str]
    """Names; labels are places in this list."""
    category_ids: list[int | str]
    """What the data set itself calls each class."""
    picture_ids: NDArray
    """(N,) what the data set itself calls each picture: whole numbers or texts."""
    sizes: NDArray[np.int64]
    """(N, 2) widths and heights in pixels."""
    starts: NDArray[np.int64]
    """(N + 1,)."""
    boxes: NDArray[np.float64]
    """(T, 4) xyxy in pixels; the part within the picture has an area, but they may reach out of it."""
    labels: NDArray[np.int64]
    """(T,) classes from 0 on."""
    crowd: NDArray[np.bool_]
    """(T,) regions with many objects of a class: ignored in training, handled by the evaluator."""
    areas: NDArray[np.float64]
    """(T,) what counts as small, medium or large: the data set's `area`, else that of the box."""

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.sizes)

    def of(self, index: int) -> slice:
        """The boxes of a picture."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))


class AnnotatedPictures(Protocol):
    """A split: pictures and what is on them."""

    @property
    def annotations(self) -> Annotations: ...

    def __len__(self) -> int: ...

    def picture(self, index: int) -> Image.Image:
        """The picture as 8-bit RGB."""
        ...

    def name(self, index: int) -> str:
        """What a person would call the picture."""
        ...


def digest(pictures: AnnotatedPictures) -> str:
    """Twelve hexadecimal digits that stand for the pictures' names, in order, and their annotations."""
    known, sha = pictures.annotations, hashlib.sha256()
    for index in range(len(pictures)):
        sha.update(pictures.name(index).encode(errors="surrogateescape") + b"\0")
    for boxes in (known.boxes, known.areas):
        sha.update(boxes.round(2).tobytes())  # drawn ones may differ in their last bits between machines
    for array in (known.sizes, known.starts, known.labels, known.crowd):
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:12]


def in_order(pictures: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For T boxes with their pictures: the order that brings those of one picture together, and ``starts``."""
    order = np.argsort(pictures, kind="stable")
    return order, np.searchsorted(pictures[order], np.arange(count + 1))
