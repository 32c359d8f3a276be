"""``python -m tools.chaos.witness TASK``: TASK.train with its arguments, and a diary of what is trained on."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.commands.entry import train
from engine.task.spec import find_spec

if TYPE_CHECKING:
    from engine.config.run import RunConfig
    from engine.distributed.ranks import Ranks
    from engine.task.task import Task


def main(task: str) -> None:
    """Trains; imports what is heavy only after the signal handlers stand."""
    spec = find_spec(task)

    def build(config: RunConfig, ranks: Ranks) -> Task:
        from tools.chaos.witnessed import witnessed

        return witnessed(spec, config, ranks)

    train(replace(spec, task=build))


if __name__ == "__main__":
    main(sys.argv.pop(1))
