"""Types of a configuration's keys in words: "a whole number >= 1 or 'auto'"."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_NOUNS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}
_LIMITS = {
    "gt": "> {}",
    "ge": ">= {}",
    "lt": "< {}",
    "le": "<= {}",
    "length": "of {} {unit}",
    "min_length": "of at least {} {unit}",
    "max_length": "of at most {} {unit}",
    "pattern": "that matches {}",
}


def alternatives(annotation: Any) -> list[Any]:
    """Returns the types an annotation allows."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in get_args(annotation) for inner in alternatives(member)]
    return [annotation]


def members(annotation: Any) -> list[Any]:
    """Returns the types an annotation allows, but None, which pydantic does not name in its locations."""
    return [member for member in alternatives(annotation) if member is not type(None)]


def is_section(annotation: Any) -> bool:
    """Tells whether an annotation is a section of keys and nothing else."""
    # Python 3.10 takes list[int] for a type.
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel)


def key_paths(annotation: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yields every key that a schema knows, with its field; one that several variants have several times."""
    for member in members(annotation):
        if is_section(member):
            for name, info in member.model_fields.items():
                yield (*prefix, name), info
                yield from key_paths(info.annotation, (*prefix, name))


def types_at(annotation: Any, keys: Sequence[str]) -> list[Any]:
    """Returns the types that a value may have under ``keys``, of all variants; none if there is no such key."""
    if not keys:
        return alternatives(annotation)
    found: list[Any] = []
    for member in members(annotation):
        if is_section(member) and keys[0] in member.model_fields:
            found += types_at(member.model_fields[keys[0]].annotation, keys[1:])
        elif get_origin(member) is dict:
            found += types_at(get_args(member)[1], keys[1:])
    return found


def words(annotation: Any, metadata: tuple[Any, ...] = ()) -> list[str]:
    """Returns what a type takes: ``a whole number >= 0``, ``a list of 2 values``, or each of its words, quoted.

    Args:
        metadata: What stands beside the type in its field's annotation.
    """
    while get_origin(annotation) is Annotated:
        annotation, *inner = get_args(annotation)
        metadata = (*metadata, *inner)
    if get_origin(annotation) in (Union, types.UnionType):
        return list(dict.fromkeys(text for member in get_args(annotation) for text in words(member, metadata)))
    origin = get_origin(annotation) or annotation
    if origin is type(None):
        return ["null"]
    if origin is Literal:
        return [repr(value) for value in get_args(annotation)]
    if is_section(origin):
        return ["a section of keys"]
    limits: dict[str, Any] = {}
    for entry in metadata:
        for constraint in entry.metadata if isinstance(entry, FieldInfo) else [entry]:
            limits |= {name: found for name in _LIMITS if (found := getattr(constraint, name, None)) is not None}
    if origin is tuple and Ellipsis not in get_args(annotation):
        limits["length"] = len(get_args(annotation))
    elif "min_length" in limits and limits["min_length"] == limits.get("max_length"):
        limits["length"] = limits.pop("min_length")
        del limits["max_length"]
    unit = "character" if origin is str else "value"
    said = " and ".join(
        text.format(limits[name], unit=unit if limits[name] == 1 else f"{unit}s")
        for name, text in _LIMITS.items()
        if name in limits
    )
    return [f"{_NOUNS.get(origin, str(annotation))} {said}".rstrip()]


def one_of(choices: list[str], word: str = "or") -> str:
    """Returns ``a, b or c``."""
    *others, last = dict.fromkeys(choices)
    return f"{', '.join(others)} {word} {last}" if others else last
