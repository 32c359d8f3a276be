"""Typed configuration: YAML files and command-line overrides become one frozen tree of pydantic models.

A section of a configuration is a subclass of :class:`Section`; every field carries its type, its default and a
docstring under it, which is also what the JSON Schema shows in editors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


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
    return value


AbsolutePath = Annotated[Path, Field(strict=False), BeforeValidator(_path_text), AfterValidator(absolute)]
"""A file or folder; relative paths are taken from the current directory and stored absolute."""


def load_config(schema: type[C], path: Path, overrides: Sequence[str] = ()) -> C:
    """The configuration of the YAML file ``path`` with ``key.path=value`` overrides on top."""
    tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    for override in overrides:
        key, _, value = override.partition("=")
        *sections, leaf = key.split(".")
        section = tree
        for name in sections:
            section = section.setdefault(name, {})
        section[leaf] = yaml.safe_load(value)
    return schema.model_validate_json(json.dumps(tree))


def dump_config(config: Section) -> str:
    """``config`` as YAML that :func:`load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def json_schema(schema: type[Section], title: str) -> dict[str, Any]:
    """The JSON Schema of ``schema``, for editors."""
    return schema.model_json_schema() | {"title": title}
