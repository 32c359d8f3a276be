"""An experiment's folder: its number, and the name of every file in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from engine.board.place import board_for
from engine.errors import UserError

_NUMBERED = re.compile(r"experiment_(\d{4,})$")


class _Entry:
    """Path of a file or folder within a run's folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: RunDir, owner: type[RunDir]) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class RunDir:
    """Knows where a run keeps what; creates nothing but the folder itself and those asked for."""

    path: Path

    readme = _Entry("README.md")
    config = _Entry("config.yaml")
    environment = _Entry("environment.json")
    """What the run's starts ran on."""
    status = _Entry("status.json")
    """How the run is doing."""
    lock = _Entry(".writer.json")
    """Names the process that writes in this folder; there only while one does."""
    failed = _Entry("FAILED.json")
    """What the latest failure was."""
    metrics = _Entry("metrics.jsonl")
    logs = _Entry("logs")
    checkpoints = _Entry("checkpoints")
    results = _Entry("results")
    """The folder of figures, and of what evaluations find."""

    @staticmethod
    def claim(root: Path) -> RunDir:
        """Makes a new, empty folder ``root``/experiment_NNNN, one number after the highest.

        Any number of processes may claim at once, also on several hosts with a shared file system: making a folder
        either succeeds or fails, so no two get the same.

        Raises:
            UserError: ``root`` cannot be made or written.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            number = max((experiment_number(path) or 0 for path in root.iterdir()), default=0) + 1
            while True:
                path = root / f"experiment_{number:04d}"
                try:
                    path.mkdir()
                    return RunDir(path)
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise UserError(f"experiment.root: no folder can be made in {root}: {error.strerror}") from None

    @property
    def name(self) -> str:
        """Returns the folder's own name, ``experiment_0001``."""
        return self.path.name

    @property
    def tensorboard(self) -> Path:
        """Returns the folder of the run's event files, or where they are to lie if it has none and no name."""
        return board_for(self.path, "")

    def log_file(self, rank: int) -> Path:
        """Returns the log of ``rank``."""
        return self.logs / f"rank_{rank}.log"

    def results_for(self, split: str) -> Path:
        """Returns the folder of an evaluation's results on ``split``."""
        return self.results / split


def experiment_number(path: Path) -> int | None:
    """Returns the number in a folder's name; None if it is no experiment's."""
    match = _NUMBERED.match(path.name)
    return int(match[1]) if match else None
