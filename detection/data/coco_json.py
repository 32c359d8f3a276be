"""The JSON files of data sets in COCO's format, as records, or faster as columns; and what a value in them may be."""

from __future__ import annotations

import json
import math
import mmap
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError

Record = dict[str, Any]

OUTLINED = "outlined"
"""Key of a record that had an outline, which is dropped, and no box."""
BLOCK = 1 << 24
"""Bytes that are searched at a time."""


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int | None = None


class _Document(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: msgspec.Raw
    licenses: msgspec.Raw = msgspec.Raw()
    info: msgspec.Raw = msgspec.Raw()


@dataclass(frozen=True)
class Columns:
    """T annotations, each of which has all that it needs, of the right type."""

    ids: NDArray[np.int64]
    """(T,)."""
    image_ids: NDArray[np.int64]
    """(T,)."""
    category_ids: NDArray[np.int64]
    """(T,)."""
    boxes: NDArray[np.float64]
    """(T, 4) left, top, width, height."""
    areas: list[float | None]
    crowd: list[int | None]

    def records(self) -> list[Record]:
        """Returns them as they stand in the file."""
        columns = zip(
            self.ids.tolist(), self.image_ids.tolist(), self.category_ids.tolist(), self.boxes.tolist(), self.areas,
            self.crowd, strict=True,
        )  # fmt: skip
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        return [dict(zip(keys, row, strict=True)) for row in columns]


@dataclass(frozen=True)
class Document:
    """What a file says."""

    images: list[Record]
    annotations: list[Record] | Columns
    categories: list[Record]


def load(file: Path) -> Document:
    """Reads a file. Outlines of objects are dropped while reading, since they are most of what COCO's files hold.

    Raises:
        UserError: it cannot be read, or is no COCO JSON.
    """
    try:
        return _typed(file) or _any(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is no JSON file ({' '.join(str(error).split())})") from None


def _typed(file: Path) -> Document | None:
    """Reads a file in which all that is read has its usual type, and no key seems to come twice; None of another."""
    try:
        with file.open("rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # ends with what of it is still looked at
        found = msgspec.json.decode(content, type=_Document)
        rest = b"".join(map(bytes, (found.categories, found.licenses, found.info)))
        images, boxes, both = len(found.images), len(found.annotations), len(found.images) + len(found.annotations)
        most = {"image_id": boxes, "category_id": boxes, "bbox": boxes, "area": boxes, "iscrowd": boxes}
        most |= {"file_name": images, "width": images, "height": images, "id": both}
        most |= {"images": 1, "annotations": 1, "categories": 1}
        for key, count in most.items():
            if _count(content, key) > count + rest.count(f'"{key}"'.encode()):
                return None
        categories = _records(json.loads(bytes(found.categories), object_pairs_hook=_without_outlines))
        of = found.annotations
        columns = Columns(
            np.array([each.id for each in of], np.int64),
            np.array([each.image_id for each in of], np.int64),
            np.array([each.category_id for each in of], np.int64),
            np.array([each.bbox for each in of], np.float64).reshape(-1, 4),
            [each.area for each in of],
            [each.iscrowd for each in of],
        )
    except (msgspec.MsgspecError, OverflowError, ValueError, RecursionError):
        return None  # the other way tells what is wrong
    keys = _Image.__struct_fields__
    records = [{key: getattr(each, key) for key in keys} for each in found.images]
    usual = all(
        is_file_name(each["file_name"]) and is_side(each["width"]) and is_side(each["height"]) for each in records
    )
    usual = usual and bool(np.isfinite(columns.boxes).all())
    return Document(records, columns, categories) if usual and categories is not None else None


def _count(content: mmap.mmap, key: str) -> int:
    """Returns how often a text stands in quotes."""
    quoted = f'"{key}"'.encode()
    starts = range(0, len(content), BLOCK)
    return sum(content[start : start + BLOCK + len(quoted) - 1].count(quoted) for start in starts)


def _any(file: Path) -> Document:
    document = json.loads(file.read_bytes(), object_pairs_hook=_without_outlines)
    lists = {}
    for key in ("images", "annotations", "categories"):
        records = _records(document.get(key) if isinstance(document, dict) else None)
        if records is None:
            raise UserError(f"{file}: is no COCO file: it needs a list of objects '{key}'")
        lists[key] = records
    return Document(**lists)


def _records(value: Any) -> list[Record] | None:
    return value if isinstance(value, list) and all(isinstance(record, dict) for record in value) else None


def _without_outlines(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"an object has the key {twice!r} more than once")
    if record.pop("segmentation", None) and not record.get("bbox"):
        record[OUTLINED] = True
    return record


LARGEST_SIDE = 2**31
"""Pixels; more is a mistake in the file."""


def is_number(value: Any) -> TypeGuard[int | float]:
    """Tells numbers, NaN and infinity among them; JSON's true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: float) -> bool:
    """Tells numbers that a float can hold."""
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON's whole numbers have no bound
        return False


def is_side(value: Any) -> bool:
    """Tells widths and heights of images: whole numbers from 1 on."""
    return is_number(value) and is_finite(value) and 1 <= value <= LARGEST_SIDE and value == int(value)


def is_id(value: Any) -> bool:
    """Tells texts and whole numbers of 64 bits, perhaps with a point (1.0), as tables with gaps are exported."""
    if type(value) is str:
        return True
    if type(value) is not int and not (is_number(value) and is_finite(value) and value == int(value)):
        return False
    return -(2**63) <= value < 2**63


def plain_id(value: Any) -> int | str:
    """Returns an id without the point that it may be written with."""
    return value if isinstance(value, str) else int(value)


def is_file_name(value: Any) -> bool:
    """Tells texts that a file can be called."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def other_type(value: Any) -> int | str | None:
    """Returns an id as the other type: the number that a text spells, or the text of a number; else None."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return str(plain_id(value)) if is_id(value) else None


def in_words(value: Any) -> str:
    """Formats a value for a message, such as ``160``, ``the text "160"`` or ``none``."""
    if value is None:
        return "none"
    written = json.dumps(plain_id(value) if is_id(value) else value)
    return f"the text {written}" if isinstance(value, str) else written
