"""What keys a configuration has: for people (``--help``) and for editors (JSON Schema)."""

from __future__ import annotations

import difflib
import json
import os
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from pydantic.fields import FieldInfo

from engine.config.section import OnlyWith, Section, Variants, variants_of
from engine.config.type_words import is_section, key_paths, members, one_of, words
from engine.errors import UserError

WIDTH = 100


def every_key(path: str) -> bool:
    """Returns that a key is to be told of, whichever it is."""
    return True


def overview(schema: type[Section], told: Callable[[str], bool] = every_key) -> str:
    """Returns the sections of a configuration, each with what it is for and the names of its keys.

    Args:
        told: Says of a dotted key whether it is among those that a command reads.
    """
    lines: list[str] = []
    for name, field in schema.model_fields.items():
        keys = dict.fromkeys(key for key, _ in _keys(field) if told(f"{name}.{key}"))
        lines += [*_wrapped(f"{name}: {field.description}", 2), *_wrapped(", ".join(keys), 6)] if keys else []
    return "\n".join(lines) + "\n"


def describe(schema: type[Section], path: str, told: Callable[[str], bool] = every_key) -> str:
    """Returns what there is to know of the section or key at the dotted ``path``: types, defaults, meaning, variants.

    Args:
        told: Says of a dotted key whether it is among those that a command reads.

    Raises:
        UserError: there is none, with the nearest; or the command does not read it.
    """
    known = [(".".join(keys), field) for keys, field in key_paths(schema)]
    found = {tuple(_entry(path, field)): field for name, field in known if name == path}  # variants may share it
    if not found:
        names = dict.fromkeys(name for name, _ in known)
        near = difflib.get_close_matches(path, names, 1) or [name for name in names if name.endswith(f".{path}")][:1]
        hint = f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(schema.model_fields)}"
        raise UserError(f"--help: there is no key '{path}'{hint}")
    if not any(told(name) for name, _ in known if f"{name}.".startswith(f"{path}.")):
        raise UserError(f"--help: this command does not read {path}")
    lines: list[str] = []
    for entry, field in found.items():
        lines += entry
        variants = variants_of(field)
        if variants is None:
            keys = [(f"{path}.{name}", inner) for name, inner in _keys(field)]
            lines += [line for key, inner in keys if told(key) for line in _entry(key, inner, 2)]
        else:
            lines += _of_variants(path, variants, told)
    return "\n".join(lines) + "\n"


def _of_variants(path: str, variants: Variants, told: Callable[[str], bool]) -> Iterator[str]:
    """Yields the keys that all variants share, then those of each; of both those that are ``told``."""
    key = f"{path}.{variants.key}"
    entries = [
        {f"{path}.{name}": _entry(f"{path}.{name}", field, 2) for name, field in member.model_fields.items()}
        for member in variants.members
    ]
    shared = [name for name, lines in entries[0].items() if all(lines == other.get(name) for other in entries)]
    for name in shared:
        if name != key and told(name):
            yield from entries[0][name]
    for member, keys in zip(variants.members, entries, strict=True):
        about = (member.__doc__ or "").partition("\n")[0]
        default = "" if member.model_fields[variants.key].is_required() else " (default)"
        names = one_of(list(variants.names(member)) or ["any other"]) + default
        if told(key):
            yield from ["", *_wrapped(f"{key}: {names}: {about}", 2)]
        own = [name for name in keys if name not in (*shared, key) and told(name)]
        yield from (f"  {line}" for name in own for line in keys[name])


def _keys(field: FieldInfo) -> list[tuple[str, FieldInfo]]:
    """Returns the keys of a section, or of all its variants; none of what is no section."""
    return [
        entry for member in members(field.annotation) if is_section(member) for entry in member.model_fields.items()
    ]


def _entry(path: str, field: FieldInfo, indent: int = 0) -> list[str]:
    """Returns a key in lines: path, type and default in the first, below it what it means."""
    kind = one_of([text.strip("'") for text in words(field.annotation, tuple(field.metadata))])
    if isinstance(field.get_default(), Section):
        default = f"see --help {path}" if indent else ""
    else:
        default = "required" if field.is_required() else f"default {_shown(field.get_default())}"
    needs = [f"only with {needed}" for needed in field.metadata if isinstance(needed, OnlyWith)]
    note = ", ".join(filter(None, [default, *needs]))
    first = f"{path}: {kind}" + (f" ({note})" if note else "")
    return [*_wrapped(first, indent), *_wrapped(field.description or "", indent + 6)]


def _shown(value: Any) -> str:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value) or "''"
    return json.dumps(value)


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2))


def json_schema(schema: type[Section], title: str) -> dict[str, Any]:
    """Returns the JSON Schema of one task's configuration files, for editors that complete and check while one types.

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
    """Takes out of a schema what only holds for a file together with its bases; and titles, which repeat keys."""
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
        if "oneOf" in node:  # without its required keys, a section may fit several variants
            node["anyOf"] = node.pop("oneOf")
        for child in node.values():
            _relax(child)
