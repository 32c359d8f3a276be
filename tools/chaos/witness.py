"""``python -m tools.chaos.witness TASK``: TASK.train with its arguments, and a diary of what is trained on."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from engine.commands.entry import train

if TYPE_CHECKING:
    from engine.commands.train import TaskKind


def main(task: str) -> None:
    """Trains; imports what is heavy only after the signal handlers stand."""
    module = importlib.import_module(f"{task}.train")

    def kind() -> TaskKind:
        from tools.chaos.witnessed import witnessed

        return witnessed(module.kind())

    train(task, module.schema, kind)


if __name__ == "__main__":
    main(sys.argv.pop(1))
