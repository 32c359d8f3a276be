"""What a single value in a COCO file may be."""

from __future__ import annotations

import json
import math
import os
from typing import Any, TypeGuard

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
