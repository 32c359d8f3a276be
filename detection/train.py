"""``python -m detection.train --config FILE [--resume DIR|auto] [--dry-run] [key.path=value ...]``"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.commands.entry import train

if TYPE_CHECKING:
    from detection.config import DetectionConfig
    from engine.commands.train import TaskKind


def schema() -> type[DetectionConfig]:
    """The type of the configuration; imports neither torch nor timm."""
    from detection.config import DetectionConfig

    return DetectionConfig


def kind() -> TaskKind:
    """Detection for the command line; imports what is heavy only when called."""
    from detection.task import DetectionTask
    from engine.commands.train import TaskKind

    return TaskKind("detection", schema(), DetectionTask)


if __name__ == "__main__":
    train("detection", schema, kind)
