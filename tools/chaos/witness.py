"""``python -m tools.chaos.witness``: classification.train, its arguments, and a diary of what is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classification.train import schema
from engine.entry import train

if TYPE_CHECKING:
    from engine.run import TaskKind


def kind() -> TaskKind:
    """Classification that keeps a diary; imports what is heavy only when called."""
    from classification.train import kind
    from tools.chaos.witnessed import witnessed

    return witnessed(kind())


if __name__ == "__main__":
    train("classification", schema, kind)
