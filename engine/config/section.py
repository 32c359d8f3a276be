"""Typed configuration: YAML files and command-line overrides become one frozen tree of pydantic models.

A section of a configuration is a subclass of :class:`Section`; every field carries its type, its default and a
docstring under it, which is also what the JSON Schema shows in editors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from engine.config.error_messages import explain, idle_keys
from engine.config.yaml_reader import Node, merge, read_file, read_override
from engine.config.yaml_writer import dump_yaml
from engine.errors import UserError


class Section(BaseModel):
    """One section of a configuration: unknown keys and wrong types are errors, values never change afterwards.

    Nothing is converted: ``true`` is no number and ``"3"`` no integer; but an integer may stand for a float, and in a
    file a list for a tuple. NaN and infinities are refused unless the field says ``Field(allow_inf_nan=True)``.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",
        protected_namespaces=(),
    )

    of_other_tasks: ClassVar[Mapping[str, str]] = {}
    """Of a whole configuration: keys that only other tasks' configurations have, each with the task's name."""


C = TypeVar("C", bound=Section)


def absolute(path: Path) -> Path:
    """``path`` taken from the current directory, with ``~`` expanded; links are kept unless a ``..`` follows them."""
    path = Path.cwd() / path.expanduser()
    if ".." not in path.parts:
        return path
    upward = len(path.parts) - path.parts[::-1].index("..")
    return Path(*path.parts[:upward]).resolve().joinpath(*path.parts[upward:])


def _path_text(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value == "":
        raise ValueError("must be a path, not empty text")
    if not isinstance(value, str):
        raise PydanticCustomError("path_type", "must be a path")
    return value


AbsolutePath = Annotated[Path, Field(strict=False), BeforeValidator(_path_text), AfterValidator(absolute)]
"""A file or folder; relative paths are taken from the current directory and stored absolute."""


def may_import(info: ValidationInfo) -> bool:
    """Whether a check may import a package that takes seconds; if not, it is to accept what it cannot know without."""
    return "import nothing" not in (info.context or ())


def of_trained_model(info: ValidationInfo) -> bool:
    """Whether the configuration is that of a trained model in use, which needs nothing to begin training with."""
    return "trained" in (info.context or ())


def load_config(schema: type[C], path: Path, overrides: Sequence[str] = (), trained: bool = False) -> C:
    """The configuration of the YAML file ``path`` and its bases, with ``key.path=value`` overrides on top.

    What can be known to be wrong without slow imports (see :func:`may_import`) is reported without them. What a base
    says is left out where a file over it, or the command line, has turned off what it belongs to; see
    :mod:`engine.config.unused_keys`.

    Args:
        trained: Whether a trained model is to be used with it, see :func:`of_trained_model`.

    Raises:
        UserError: everything that is wrong, one line each: ``FILE:LINE: key.path: what is wrong``.
    """
    tree = read_file(Path(path))
    for override in overrides:
        tree = merge(tree, read_override(override))
    _refuse_other_task(schema, tree)
    context = ("trained",) if trained else ()
    tree, _ = _validated(schema, tree, (*context, "import nothing"))
    return _validated(schema, tree, context)[1]


def _refuse_other_task(schema: type[Section], tree: Node) -> None:
    """Raises one line of :class:`UserError` for another task's configuration, of which nearly every key is unknown."""
    for key, task in schema.of_other_tasks.items():
        if tree.layer_of((key,)) is not None:
            raise UserError(
                f"{tree.place_of((key,))}: {key}: only {task} has this section: use python -m {task}.… for it"
            )


def _validated(schema: type[C], tree: Node, context: tuple[str, ...]) -> tuple[Node, C]:
    """``tree`` without the keys that it inherits and has turned off, and the configuration that it says."""
    wrong: list[str] = []
    while True:
        try:
            # As JSON, since pydantic's strictness means there what it means for any text: a list may be a tuple.
            config = schema.model_validate_json(json.dumps(tree.plain()), context=context)
            break
        except ValidationError as error:
            inherited, refused = idle_keys(error, schema, tree)
            if not inherited:
                wrong += explain(error, schema, tree)
            for keys in inherited or refused:  # a section tells of one rule at a time: without them it tells the next
                tree = tree.without(keys)
            if not inherited and not refused:
                break
    if wrong:
        raise UserError("\n".join(dict.fromkeys(wrong)))
    return tree, config


def dump_config(config: Section) -> str:
    """``config`` as YAML that :func:`load_config` reads back to an equal object, with all defaults written out."""
    return dump_yaml(config.model_dump(mode="json"))


def differences(old: Section | Mapping[str, Any], new: Section | Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What changed from ``old`` to ``new``: (key.path, old value, new value) of each leaf; None for one not there."""
    before, after = _leaves(old), _leaves(new)
    keys = dict.fromkeys([*before, *after])
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def is_below(key: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted key is one of ``prefixes`` or lies in the section of one."""
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def _leaves(tree: Section | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a tree under their dotted keys; lists are leaves, and so are empty mappings."""
    if isinstance(tree, Section):
        tree = tree.model_dump(mode="json")
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def json_schema(schema: type[Section], title: str) -> dict[str, Any]:
    """The JSON Schema of one task's configuration files, for editors that complete and check while one types.

    A file may leave to its ``base`` what the configuration as a whole requires, so only a file without one has to have
    the required sections.
    """
    document = schema.model_json_schema()
    required = document.get("required", [])
    _relax(document)
    document["properties"] = {"base": _BASE, **document["properties"]}
    if required:
        document["anyOf"] = [{"required": ["base"]}, {"required": required}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document, "title": title}


_BASE = {
    "description": "Files to inherit from, relative to this one; what follows wins over what they say.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}


def _relax(node: Any) -> None:
    """Take from a schema, in place, what only holds for a file together with its bases; and titles that repeat keys."""
    if isinstance(node, list):
        for item in node:
            _relax(item)
    elif isinstance(node, dict):
        if isinstance(node.get("required"), list):
            del node["required"]
        if isinstance(node.get("title"), str):
            del node["title"]
        if isinstance(node.get("default"), dict):
            del node["default"]  # a section's defaults stand at its keys; its paths here would be this folder's
        node.pop("discriminator", None)
        if "oneOf" in node:  # without its required keys, a section may fit several variants
            node["anyOf"] = node.pop("oneOf")
        for child in node.values():
            _relax(child)
