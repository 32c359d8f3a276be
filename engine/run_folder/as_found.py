"""Files of an experiment as they are found: whole, cut short, damaged, or not there. What is wrong is told."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from engine.config.yaml_reader import SCALARS

MOST_BYTES = 32 * 2**20
"""Of a file, its last ones, that are read."""
MOST_SETTINGS = 10_000
Record = dict[str, Any]
Tell = Callable[[str], object]
"""Is told what is wrong with a file."""


def number(value: Any) -> float | None:
    """Returns a value of a JSON file that is a number, and not NaN; else None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads scalars as the suite's configurations mean them, in C where there is libyaml."""

    yaml_implicit_resolvers: dict[str | None, list[Any]] = {}


for _tag, (_pattern, _convert) in SCALARS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, None)
    _Loader.add_constructor(_tag, lambda loader, node, convert=_convert: convert(loader.construct_scalar(node)))


def read_settings(path: Path, tell: Tell) -> dict[str, Any]:
    """Reads a resolved configuration as values by their dotted keys; lists as JSON."""
    text = _text(path, tell)
    if text is None:
        return {}
    try:
        tree = yaml.load(text, _Loader)  # a safe loader: plain values only
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        tell(f"{path.name}: is no YAML" + (f" in line {where.line + 1}" if where else ""))
        return {}
    found = list(itertools.islice(_flat(tree), MOST_SETTINGS + 1)) if isinstance(tree, dict) else []
    if not found or len(found) > MOST_SETTINGS:
        tell(f"{path.name}: is no configuration")
        return {}
    return dict(found)


def _flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield (
                f"{prefix}{key}",
                value if isinstance(value, bool | int | float | str | None) else json.dumps(value, default=str),
            )


def read_object(path: Path, tell: Tell) -> dict[str, Any]:
    """Reads the object in a JSON file; empty if there is none."""
    text = _text(path, tell)
    try:
        content = json.loads(text) if text is not None else {}
        if isinstance(content, dict):
            return content
    except (ValueError, RecursionError):
        pass
    tell(f"{path.name}: is damaged")
    return {}


def read_records(path: Path, tell: Tell) -> Iterator[Record]:
    """Yields the records of a metrics.jsonl; a last line that is being written is none, and what is broken is told."""
    text = _text(path, tell)
    lines = text.split("\n")[:-1] if text is not None else []
    try:
        found = json.loads(f"[{','.join(lines)}]")  # at once, which is quicker
    except (ValueError, RecursionError):
        found = []
    if len(found) != len(lines):
        found = [_parsed(line) for line in lines]
    broken = 0
    for record in found:
        if isinstance(record, dict) and isinstance(record.get("split"), str) and number(record.get("step")) is not None:
            yield record
        else:
            broken += 1
    if broken:
        tell(f"{path.name}: {broken} of {len(lines)} lines are damaged")


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _text(path: Path, tell: Tell) -> str | None:
    """Returns what a file holds, or its end; None, and a problem, if it cannot be read or is no file."""
    try:
        if not path.is_file():
            raise FileNotFoundError
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - MOST_BYTES))
            content = file.read()
    except FileNotFoundError:
        tell(f"no {path.name}")
        return None
    except OSError as error:
        tell(f"{path.name}: cannot be read: {error.strerror}")
        return None
    if size > MOST_BYTES:
        tell(f"{path.name}: only its end was read")
        content = content[content.find(b"\n") + 1 :]
    return content.decode(errors="replace")
