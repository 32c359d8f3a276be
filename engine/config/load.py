"""From YAML files and the command line to a typed configuration, and back to text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from engine.config.error_messages import explain, left_out
from engine.config.section import IMPORT_NOTHING, TRAINED, Section
from engine.config.type_words import is_section, types_at
from engine.config.yaml_reader import COMMAND_LINE, Node, merge, read_file, read_value
from engine.config.yaml_writer import dump_yaml
from engine.errors import UserError

C = TypeVar("C", bound=Section)

_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'"
_ITEM = re.compile(rf"\s*((?:{_QUOTED})(?=,)|[^,]*),", re.DOTALL)
"""One of several texts, behind each of which stands a comma."""


OLDER = {"data.decode": "exact"}
"""What versions did that had no such setting, where its default is something else by now."""


class ConfigError(UserError):
    """Everything that is wrong in a configuration, and the places of its sections that its type has not."""

    def __init__(self, text: str, unknown_sections: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.unknown_sections = unknown_sections or {}  # with a default: errors are pickled with their text alone


def load_config(
    schema: type[C], path: Path, overrides: Sequence[str] = (), trained: bool = False, slow_checks: bool = True
) -> C:
    """Returns the configuration of the YAML file ``path`` and its bases, with ``key.path=value`` overrides on top.

    What can be known to be wrong without slow imports (see :func:`may_import`) is reported without them. What a base
    says is left out where a file over it, or the command line, has turned off what it belongs to: keys of another
    variant (:class:`Variants`), and those without effect (:class:`UnusedKeys`).

    Args:
        trained: Whether a trained model is to be used with it, see :func:`of_trained_model`.
        slow_checks: Make the checks that import what takes seconds, such as timm for the names of its models.

    Raises:
        ConfigError: everything that is wrong, one line each: ``FILE:LINE: key.path: what is wrong``.
    """
    tree = read_file(Path(path))
    for override in overrides:
        tree = merge(tree, read_override(override, schema))
    context = (TRAINED,) if trained else ()
    tree, config = _validated(schema, tree, (*context, IMPORT_NOTHING))
    return _validated(schema, tree, context)[1] if slow_checks else config


def load_recorded(
    schema: type[C], path: Path, overrides: Sequence[str] = (), trained: bool = False, slow_checks: bool = True
) -> C:
    """Returns the configuration that a run has recorded, as :func:`load_config` does.

    What it does not say, since an older version wrote it, is what that version did.
    """
    return load_config(schema, path, [*older_settings(schema, path), *overrides], trained, slow_checks)


def older_settings(schema: type[BaseModel], path: Path) -> list[str]:
    """Returns, as ``key=value``, what an older version did that a configuration recorded by it does not say."""
    said = leaves(read_file(Path(path)).plain())
    return [f"{key}={value}" for key, value in OLDER.items() if key not in said and types_at(schema, key.split("."))]


def _validated(schema: type[C], tree: Node, context: tuple[str, ...]) -> tuple[Node, C]:
    """Returns ``tree`` without the keys that it inherits and has turned off, and the configuration that it says."""
    while True:
        try:
            # As JSON, since pydantic's strictness means there what it means for any text: a list may be a tuple.
            return tree, schema.model_validate_json(json.dumps(tree.plain()), context=context)
        except ValidationError as error:
            inherited = left_out(error, schema, tree)
            if not inherited:
                unknown = [str(found["loc"][0]) for found in error.errors() if len(found["loc"]) == 1]
                places = {key: str(tree.place_of((key,))) for key in unknown if key not in schema.model_fields}
                raise ConfigError("\n".join(explain(error, schema, tree)), places) from None
            for keys in inherited:
                tree = tree.without(keys)


def dump_config(config: Section) -> str:
    """Returns ``config`` as YAML that :func:`load_config` reads back to an equal object, with all defaults written."""
    return dump_yaml(config.model_dump(mode="json"))


def differences(old: Section | Mapping[str, Any], new: Section | Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns what changed from ``old`` to ``new``: (key.path, old, new value) of each leaf; None for one not there."""
    before, after = leaves(old), leaves(new)
    keys = dict.fromkeys([*before, *after])
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def is_below(key: str, prefixes: Sequence[str]) -> bool:
    """Tells whether a dotted key is one of ``prefixes`` or lies in the section of one."""
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def leaves(tree: Section | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of a tree under their dotted keys; lists are leaves, and so are empty mappings."""
    if isinstance(tree, Section):
        tree = tree.model_dump(mode="json")
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


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


def emptied(overrides: Sequence[str], schema: type[BaseModel]) -> list[str]:
    """Says of each ``key.path=`` with nothing behind it what the key is by that: empty text where it takes text."""
    keys = [text[:-1] for text in overrides if text.endswith("=") and text.count("=") == 1]
    kinds = {key: "empty text" if _is_typed(types_at(schema, key.split(".")), "") else "null" for key in keys}
    return [f"{COMMAND_LINE}: {key}: nothing stands behind =, so it is {kind}" for key, kind in kinds.items()]


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
