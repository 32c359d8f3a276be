"""Paths in a configuration: with environment variables and ``~``, relative ones from the current folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError, PydanticSerializationUnexpectedValue

from engine.text import shortened

LONGEST, LONGEST_PATH = 255, 4000
"""Bytes of a file's name, and characters of a path; systems take no more."""
_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{(\w*)\})")


def expand(text: str) -> str:
    """Puts in the values of ``$NAME`` and ``${NAME}``, a dollar for ``$$``, and the home folder for a leading ``~``.

    Raises:
        ValueError: a variable is not set or empty, there is no such user, or no path can be called so.
    """

    def value(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        name = found[2] or found[3]
        if not os.environ.get(name):
            state = "is empty" if name in os.environ else "is not set"
            raise ValueError(f"the environment variable {name} {state} (a dollar sign itself is $$)")
        return os.environ[name]

    expanded = os.path.expanduser(_VARIABLE.sub(value, text))
    if expanded.startswith("~"):
        raise ValueError(f"there is no user of the name in {text!r} (a file that begins so is ./{expanded})")
    if "\0" in expanded:
        raise ValueError(f"no path can have the character \\0: {shortened(repr(text), 80)}")
    if max(len(os.fsencode(name)) for name in expanded.split("/")) > LONGEST or len(expanded) > LONGEST_PATH:
        raise ValueError(f"no path can be as long as {shortened(repr(text), 80)}")
    return expanded


def absolute(path: Path) -> Path:
    """Returns ``path`` taken from the current directory; links are kept unless a ``..`` follows them."""
    path = Path.cwd() / path
    if ".." not in path.parts:
        return path
    upward = len(path.parts) - path.parts[::-1].index("..")
    return Path(os.path.realpath(Path(*path.parts[:upward]))).joinpath(*path.parts[upward:])


def _read(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value == "":
        raise ValueError("must be a path, not empty text; null, where none is needed")
    if not isinstance(value, str):
        raise PydanticCustomError("path_type", "must be a path")
    return expand(value)


def _write(path: Any) -> str:
    if not isinstance(path, Path):  # of a union, another member's
        raise PydanticSerializationUnexpectedValue("not a path")
    return os.fspath(path).replace("$", "$$")


AbsolutePath = Annotated[
    Path,
    Field(strict=False),
    BeforeValidator(_read),
    AfterValidator(absolute),
    PlainSerializer(_write, return_type=str, when_used="json"),
]
"""A file or folder, stored absolute; in text, ``$NAME`` and ``~`` are expanded."""
