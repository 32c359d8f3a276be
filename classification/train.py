"""``python -m classification.train --config FILE [--resume DIR|auto] [--dry-run] [key.path=value ...]``"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.entry import train

if TYPE_CHECKING:
    from engine.run import TaskKind


def kind() -> TaskKind:
    """Classification for the command line; imports what is heavy only when called."""
    from classification.config import ClassificationConfig
    from classification.task import ClassificationTask
    from engine.run import TaskKind

    return TaskKind("classification", ClassificationConfig, ClassificationTask)


if __name__ == "__main__":
    train("classification", kind)
