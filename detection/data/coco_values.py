"""What a single value in a COCO file may be."""

from __future__ import annotations

import json
import math
import os
from typing import Any, TypeGuard

LARGEST_SIDE = 2**31
"""Pixels; more is a mistake in the file."""


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number, NaN and infinity among them; JSON's true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: float) -> bool:
    """Whether a number is one that a float can hold."""
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON's whole numbers have no bound
        return False


def is_side(value: Any) -> bool:
    """Whether it is an image's width or height: a whole number from 1 on."""
    return is_number(value) and is_finite(value) and 1 <= value <= LARGEST_SIDE and value == int(value)


def is_id(value: Any) -> bool:
    """Whether it is a text or a whole number, perhaps written with a point (1.0), as tables with gaps are exported."""
    if type(value) is int or type(value) is str:  # nearly all of a million
        return True
    return is_number(value) and is_finite(value) and value == int(value)


def plain_id(value: Any) -> int | str:
    """An id without the point that it may be written with."""
    return value if isinstance(value, str) else int(value)


def is_file_name(value: Any) -> bool:
    """Whether it is a text that a file can be called."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def other_type(value: Any) -> int | str | None:
    """An id as the other type: the number that a text spells, or the text of a number; None if there is none."""
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return str(plain_id(value)) if is_id(value) else None


def in_words(value: Any) -> str:
    """A value for a message, such as ``160``, ``the text "160"`` or ``none``."""
    if value is None:
        return "none"
    written = json.dumps(plain_id(value) if is_id(value) else value)
    return f"the text {written}" if isinstance(value, str) else written


def is_flag(value: Any) -> bool:
    """Whether it is 0 or 1, true or false."""
    return value in (0, 1)


def is_crowd(value: Any) -> bool:
    """Whether an `iscrowd` entry says yes, as any number but 0 does to pycocotools; of texts, "1" alone."""
    return value == "1" or (isinstance(value, int | float) and value != 0)


def is_area(value: Any) -> bool:
    """Whether it is a number of pixels that an object can cover."""
    return is_number(value) and is_finite(value) and value > 0
