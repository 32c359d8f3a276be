"""Settings of the command line, ``key.path=value``: as they were typed where the key takes text, else YAML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel

from engine.config.type_words import is_section, types_at
from engine.config.yaml_reader import COMMAND_LINE, Node, read_value
from engine.errors import UserError

_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'"
_ITEM = re.compile(rf"\s*((?:{_QUOTED})(?=,)|[^,]*),", re.DOTALL)
"""One of several texts, behind each of which stands a comma."""


def read_override(text: str, schema: type[BaseModel]) -> Node:
    """Reads the tree of a ``key.path=value``; a mapping as value replaces, as its dotted key says.

    A key of ``schema`` that takes text or a path gets the value as it was typed, with whatever has a meaning in YAML;
    but a value in quotes as YAML reads it, and ``null`` where the key may be null.

    Raises:
        UserError: the text has no ``=``, an empty key, or a value that is not YAML where it has to be.
    """
    path, equals, value = text.partition("=")
    keys = path.split(".")
    if not equals or not all(key.strip() == key != "" for key in keys):
        raise UserError(f"{COMMAND_LINE}: '{text}' is not of the form key.path=value")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{COMMAND_LINE}: {path}: {value!r} is not UTF-8 text") from None
    if _is_typed(types_at(schema, keys), value):
        node = Node(value, COMMAND_LINE)
    else:
        node = replace(read_value(value, path), replaces=True)
    for key in reversed(keys):
        node = Node({key: node}, COMMAND_LINE)
    return node


def split_values(key: str, text: str, schema: type[BaseModel]) -> list[str]:
    """Splits ``a,b,c``, values for ``key``, at its commas but for those in quotes or, where it is YAML, in brackets.

    Raises:
        UserError: it is no list of values.
    """
    kinds = types_at(schema, key.split("."))
    if _takes_text(kinds) and not (_takes_more(kinds) and re.search(r"[\[{]", text)):
        values = [found[1] for found in _ITEM.finditer(f"{text},")]
    else:
        listed = f"[{text}]"
        try:
            root = yaml.compose(listed, Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            root = None
        if not isinstance(root, yaml.SequenceNode) or root.end_mark.index != len(listed):
            raise UserError(f"--sweep: {key}: '{text}' is no list of values a,b,c")
        values = [listed[node.start_mark.index : node.end_mark.index].strip() for node in root.value]
    return values


def _is_typed(kinds: Sequence[Any], value: str) -> bool:
    """Tells whether a value for a key of these types is no YAML."""
    if not _takes_text(kinds) or re.fullmatch(_QUOTED, value, re.DOTALL) or (value == "null" and type(None) in kinds):
        return False
    return not (_takes_more(kinds) and re.fullmatch(r"\[.*\]|\{.*\}", value.strip(), re.DOTALL))


def _takes_text(kinds: Sequence[Any]) -> bool:
    return any(kind in (str, Path) for kind in kinds) and not any(kind in (bool, int, float) for kind in kinds)


def _takes_more(kinds: Sequence[Any]) -> bool:
    """Tells whether the value may be a list, a mapping or a section as well."""
    return any(is_section(kind) or get_origin(kind) in (dict, list, tuple) for kind in kinds)
