"""A configuration that is another task's: said in one line, since nearly all of its keys would be unknown."""

from __future__ import annotations

from contextlib import suppress

from engine.config.load import ConfigError
from engine.config.type_words import one_of
from engine.errors import UserError
from engine.task.spec import find_spec, known_tasks


def explained(error: UserError) -> str:
    """Returns what to tell of ``error``: the tasks whose section a configuration has by mistake, or else its text."""
    places = error.unknown_sections if isinstance(error, ConfigError) else {}
    for section, place in places.items():
        if tasks := [f"{task}.…" for task in known_tasks() if _has(task, section)]:
            return f"{place}: {section}: this task has no such section: use python -m {one_of(tasks)} for it"
    return str(error)


def _has(task: str, section: str) -> bool:
    with suppress(Exception):  # a task that somebody is about to write is no reason to say nothing of this one
        return section in find_spec(task).schema().model_fields
    return False
