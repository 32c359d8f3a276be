"""A configuration that is another task's: said in one line, since nearly all of its keys would be unknown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engine.config.load import ConfigError, load_config
from engine.config.type_words import one_of
from engine.errors import UserError
from engine.files import command
from engine.task.spec import find_spec, known_tasks


def explained(error: UserError) -> str:
    """Returns what to tell of ``error``: the tasks whose section a configuration has by mistake, or else its text."""
    places = error.unknown_sections if isinstance(error, ConfigError) else {}
    for section, place in places.items():
        if tasks := [_instead(task) for task in known_tasks() if _has(task, section)]:
            return f"{place}: {section}: this task has no such section: use {one_of(tasks)}"
    return str(error)


def _instead(task: str) -> str:
    """Returns what to type for another task than that of this process: the whole command, if that task has it, or the
    option of a tool."""
    program = Path(sys.argv[0])
    if program.parent.name in known_tasks() and (program.parent.parent / task / program.name).exists():
        return command("python", "-m", f"{task}.{program.stem}", *sys.argv[1:])
    return f"--task {task}" if "tools" in (program.parent.name, program.parent.parent.name) else f"python -m {task}.…"


def _has(task: str, section: str) -> bool:
    with suppress(Exception):  # a task that somebody is about to write is no reason to say nothing of this one
        return section in find_spec(task).schema().model_fields
    return False


def task_of(config: Path, overrides: Sequence[str]) -> str:
    """Returns the known task whose configuration it is. Raises a UserError if there is not exactly one."""
    fitting, faults = [], []
    for task in known_tasks():
        try:
            load_config(find_spec(task).schema(), config, overrides)
            fitting.append(task)
        except UserError as error:
            faults.append(f"\nas {task}: {explained(error)}")
    if len(fitting) == 1:
        return fitting[0]
    can = f"{' and '.join(fitting)} can" if fitting else "no task can"
    raise UserError(f"--task is needed: {can} read {config} with these settings{'' if fitting else ''.join(faults)}")
