"""An experiment's folder: its number, and the name of every file in it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError

_NUMBERED = re.compile(r"experiment_(\d{4,})$")


@dataclass(frozen=True)
class RunDir:
    """Knows where a run keeps what; creates nothing but the folder itself and those asked for."""

    path: Path

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

    def release(self) -> None:
        """Gives back a claimed folder in which nothing was written."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    @property
    def name(self) -> str:
        """The folder's own name, ``experiment_0001``."""
        return self.path.name

    @property
    def readme(self) -> Path:
        """The page for people."""
        return self.path / "README.md"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """What the run's starts ran on."""
        return self.path / "environment.json"

    @property
    def status(self) -> Path:
        """How the run is doing."""
        return self.path / "status.json"

    @property
    def lock(self) -> Path:
        """Names the process that writes in this folder; there only while one does."""
        return self.path / ".writer.json"

    @property
    def failed(self) -> Path:
        """What the latest failure was."""
        return self.path / "FAILED.json"

    @property
    def metrics(self) -> Path:
        """The records of training and evaluations."""
        return self.path / "metrics.jsonl"

    @property
    def logs(self) -> Path:
        """The folder of one log a rank."""
        return self.path / "logs"

    def log_file(self, rank: int) -> Path:
        """Returns the log of ``rank``."""
        return self.logs / f"rank_{rank}.log"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def results(self) -> Path:
        """The folder of figures, and of what evaluations find."""
        return self.path / "results"

    def results_for(self, split: str) -> Path:
        """Returns the folder of an evaluation's results on ``split``."""
        return self.results / split


def experiment_number(path: Path) -> int | None:
    """Returns the number in a folder's name; None if it is no experiment's."""
    match = _NUMBERED.match(path.name)
    return int(match[1]) if match else None
