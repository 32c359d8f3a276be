"""What a single value in a COCO file may be."""

from __future__ import annotations

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
    """Whether it is a picture's width or height: a whole number from 1 on."""
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


def is_crowd(value: Any) -> bool:
    """Whether an `iscrowd` entry says yes."""
    return value in (1, True, "1")


def box_area(value: Any) -> float:
    """An `area` entry; NaN where there is none that can be used."""
    return float(value) if is_number(value) and is_finite(value) and value >= 0 else math.nan
