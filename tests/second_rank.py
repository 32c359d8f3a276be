"""What the second of two ranks does to files, seen by :mod:`tests.witness`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.distributed import launch
from tests.witness import IMAGES, notes_of, touched, watched


def check_second_rank(commands: Mapping[str, list[str]], folder: Path, images: Path) -> None:
    """Runs commands on two ranks each, one after the other: the second may open images, and nothing else.

    Args:
        commands: by a name for messages.
        folder: where they run, and their notes lie.
        images: the folder that holds the images.
    """
    for name, command in commands.items():
        notes = folder / "notes" / name
        ended = launch(2, watched(command, notes), cwd=folder)
        assert [end.returncode for end in ended] == [0, 0], ended[0].output + ended[1].output
        assert touched(notes, 1, images) == set(), name
        assert touched(notes, 0, images), name
        opened = [{path for action, path in notes_of(notes, rank) if path.endswith(IMAGES)} for rank in (0, 1)]
        assert all(opened), f"{name}: each has its share of the images"
