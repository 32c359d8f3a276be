"""Data, and other files, of a run that lie elsewhere by now: the same files below another path."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from engine.config.load import differences, is_below
from engine.config.run import RunConfig
from engine.errors import UserError

C = TypeVar("C", bound=RunConfig)

MOST_SHOWN = 4
"""Differences that a message names."""


def is_move(config: RunConfig, key: str, old: Any, new: Any) -> bool:
    """Returns whether a change of a setting names another place for what it says, and changes nothing else."""
    paths = all(isinstance(value, str) and os.path.isabs(value) for value in (old, new))
    return paths and is_below(key, config.locations)


def found_again(before: C, config: C) -> C:
    """Returns ``before``, with the places of ``config`` for what is gone from its own, as from a node's own disk."""
    moves = [change for change in differences(before, config) if is_move(config, *change) and _is_gone(change[1])]
    tree = before.model_dump(mode="json")
    for key, _, new in moves:
        section, (*outer, name) = tree, key.split(".")
        for part in outer:
            section = section[part]
        section[name] = new
    return type(before).model_validate_json(json.dumps(tree)) if moves else before


def _is_gone(path: str) -> bool:
    """Returns whether there is nothing at a path of a configuration, which has two dollar signs for one."""
    return not os.path.exists(path.replace("$$", "$"))


def check_same_data(
    before: Mapping[str, Any], config: RunConfig, saved: Mapping[str, Any], now: Mapping[str, Any], what: str
) -> None:
    """Makes sure that data which have been moved since a checkpoint are those that it was trained on.

    Args:
        before: the checkpoint's configuration as plain values.
        saved: what its task said of its data and model, see :meth:`engine.task.task.Task.metadata`; older ones say
            less.
        now: what the task says.
        what: what is resumed, for the message.

    Raises:
        UserError: they are others; the text says in what.
    """
    places = [change for change in differences(before, config) if is_move(config, *change)]
    others = [f"{key}: {old} -> {new}" for key, old, new in differences(saved, now) if old is not None]
    if places and others:
        there = ", ".join(f"{key}={new}" for key, _, new in places)
        more = f"; and {len(others) - MOST_SHOWN} more" if len(others) > MOST_SHOWN else ""
        raise UserError(
            f"{what}: what lies at {there} is not what the run was trained on: {'; '.join(others[:MOST_SHOWN])}{more}; "
            "name the place of the same files, or start a new run"
        )


@contextmanager
def hint_of_moves(config: RunConfig) -> Iterator[None]:
    """Adds to a UserError, where data of the configuration are gone, how to say where they lie now."""
    try:
        yield
    except UserError as error:
        places = [change for change in differences({}, config) if is_move(config, change[0], change[2], change[2])]
        gone = [key for key, _, path in places if _is_gone(path)]
        if not gone:
            raise
        settings = " ".join(f"{key}=/THE/NEW/PLACE" for key in gone)
        raise UserError(f"{error}\nif the same files lie elsewhere now, add to this command: {settings}") from None
