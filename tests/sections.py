"""Sections of a configuration that have variants, made from Python's values."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter


def section(kind: Any, **values: Any) -> Any:
    """Returns the variant of ``kind``, a union of sections, that ``values`` are for."""
    return TypeAdapter(kind).validate_python(values)
