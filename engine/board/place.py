"""Where in its folder a run's event files lie, which is what TensorBoard calls the run."""

from __future__ import annotations

import re
from pathlib import Path

OLD = "tensorboard"
"""Where event files lie in folders of earlier versions."""
TAKEN = ("logs", "checkpoints", "results", OLD)
"""Names of other folders in an experiment."""
CARD, END = (f"events.out.tfevents.{time}.{name}" for time, name in (("0000000000", "card"), ("9999999999", "end")))
"""What stands before and behind all numbers, see :mod:`engine.board.card`: TensorBoard reads files by their names."""
LONGEST = 80
"""Characters of a folder's name."""


def event_files(folder: Path) -> list[Path]:
    """Returns the files directly in ``folder`` that TensorBoard reads, in the order in which it does."""
    return sorted(path for path in folder.glob("*tfevents*") if path.is_file()) if folder.is_dir() else []


def find_board(run: Path) -> Path | None:
    """Returns the folder of a run's event files; None if it has none."""
    below = sorted(path for path in run.iterdir() if path.is_dir()) if run.is_dir() else []
    places = [run / OLD, run, *(path for path in below if path.name not in TAKEN)]
    return next((place for place in places if event_files(place)), None)


def board_for(run: Path, name: str) -> Path:
    """Returns where a run's event files are to lie: where there are some already, else by its readable name.

    ``tensorboard --logdir experiments`` shows a run under the path of its event files: ``experiment_0007/NAME``, or,
    without a name, ``experiment_0007``.
    """
    folder = re.sub(r"[^\w.+=,@()-]+", " ", name).strip(" .")[:LONGEST].strip()
    if folder.lower() in TAKEN or (run / folder).is_file():
        folder = f"{folder} run"
    return find_board(run) or run / folder
