"""Settings that nothing reads because another setting says otherwise: refused where somebody wrote them down.

A key counts as set when its value is not its default. So the resolved configuration of a run, with all defaults
written out, reads back; and what is refused can be undone by taking it out.

What a ``base`` says is another matter: a file over it may well turn off what the base's keys belong to, and so may the
command line (``schedule.name=cosine`` over a file with ``schedule.plateau``). Such keys are left out silently, and the
resolved configuration shows their defaults. They are refused only where they stand in the same file as the setting that
makes them idle, or in one that is read over it; all of the command line counts as one file. All
are told of at once. Of two keys of which only one may be given, each decides over the other: the one read later counts.
Left alone are keys that cannot change a result, such as ``data.prefetch`` without workers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import reduce
from typing import Any

from pydantic import BaseModel


class IdleKeys(ValueError):
    """Keys are set that have no effect. ``keys`` and ``deciders`` are dotted, from the section that was checked on."""

    def __init__(self, text: str, keys: Sequence[str], deciders: Sequence[str]) -> None:
        super().__init__(text)
        self.keys, self.deciders = tuple(keys), tuple(deciders)


def refuse_idle(section: BaseModel, keys: Sequence[str], *, needed: str, holds: bool, deciders: Sequence[str]) -> None:
    """Checks that none of ``keys`` is set, unless what they need ``holds``.

    Args:
        section: What all keys start from.
        keys: Dotted; of a section with defaults, all its keys.
        needed: What they need, as the message says it: "schedule.name: plateau".
        deciders: The keys that decide whether it holds, dotted.

    Raises:
        IdleKeys: some are set and it does not hold; pydantic's validators may raise it.
    """
    found = [] if holds else [entry for key in keys for entry in _set_keys(section, key)]
    if found:
        (first, default), others = found[0], [name for name, _ in found[1:]]
        text = f"{first}: has an effect only with {needed}"
        if others:
            text += f", and so {'has' if len(others) == 1 else 'have'} {', '.join(others)}; remove them"
        else:
            text += f"; remove it, or write its default, {_written(default)}"
        raise IdleKeys(text, [first, *others], deciders)


def _set_keys(section: BaseModel, path: str) -> list[tuple[str, Any]]:
    """The dotted keys at or below ``path`` whose values are not their defaults, each with its default."""
    *outer, name = path.split(".")
    owner: BaseModel = reduce(getattr, outer, section)
    value, default = getattr(owner, name), type(owner).model_fields[name].default
    if isinstance(value, BaseModel) and isinstance(default, BaseModel):
        return [entry for inner in type(value).model_fields for entry in _set_keys(section, f"{path}.{inner}")]
    return [] if value == default else [(path, default)]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
