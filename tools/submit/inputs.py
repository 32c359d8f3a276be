"""What a run reads, looked for where there is a network and somebody who can still fetch it: on the login node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.config.load import is_below
from engine.config.run import RunConfig
from engine.errors import UserError
from engine.task.spec import TaskSpec


def check_inputs(spec: TaskSpec, config: RunConfig) -> None:
    """Raises a :class:`UserError` if data or weights are not there; the text says where they were looked for."""
    fetched = ("data",) if getattr(getattr(config, "data", None), "download", False) else ()
    for key, path in _paths(config):
        if not path.exists() and not is_below(key, ("experiment", *fetched)):
            raise UserError(f"{key}: {path} does not exist; fetch it first, as nodes may have no network")
    spec.inputs(config)


def _paths(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """The paths in a configuration under their dotted keys."""
    for name in type(section).model_fields:
        value: Any = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _paths(value, f"{prefix}{name}.")
        elif isinstance(value, Path):
            yield f"{prefix}{name}", value
