"""``python -m classification.train --config FILE [--resume DIR|auto] [--dry-run] [key.path=value ...]``"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.commands.entry import train

if TYPE_CHECKING:
    from classification.config import ClassificationConfig
    from engine.commands.train import TaskKind


def schema() -> type[ClassificationConfig]:
    """The type of the configuration; imports neither torch nor timm."""
    from classification.config import ClassificationConfig

    return ClassificationConfig


def kind() -> TaskKind:
    """Classification for the command line; imports what is heavy only when called."""
    from classification.task import ClassificationTask
    from engine.commands.train import TaskKind

    return TaskKind("classification", schema(), ClassificationTask)


if __name__ == "__main__":
    train("classification", schema, kind)
