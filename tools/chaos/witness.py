"""``python -m tools.chaos.witness TASK``: TASK.train with its arguments, and a diary of what is trained on."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

from engine.commands.entry import train
from engine.task.spec import Later, find_spec


def main(task: str) -> None:
    """Trains, and imports what is heavy only after the signal handlers stand."""
    spec = find_spec(task)
    train(replace(spec, task=partial(Later("tools.chaos.witnessed:witnessed"), spec)))


if __name__ == "__main__":
    main(sys.argv.pop(1))
