"""From YAML files and the command line to a typed configuration, and back to text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from engine.config.command_line import read_override
from engine.config.error_messages import explain, left_out
from engine.config.section import IMPORT_NOTHING, TRAINED, Section
from engine.config.yaml_reader import Node, merge, read_file
from engine.config.yaml_writer import dump_yaml
from engine.errors import UserError

C = TypeVar("C", bound=Section)


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
    before, after = _leaves(old), _leaves(new)
    keys = dict.fromkeys([*before, *after])
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def is_below(key: str, prefixes: Sequence[str]) -> bool:
    """Tells whether a dotted key is one of ``prefixes`` or lies in the section of one."""
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def _leaves(tree: Section | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of a tree under their dotted keys; lists are leaves, and so are empty mappings."""
    if isinstance(tree, Section):
        tree = tree.model_dump(mode="json")
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
