"""What the training loop tells of a run while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.images.image_io import ImageArray
from engine.training.state import RunState


class Recorder:
    """Records nothing: what every rank but the first is given, and a dry run."""

    def begin(self, state: RunState, epoch: float, total_steps: int) -> None:
        """Records that training starts or goes on from ``state``, after ``epoch`` epochs (with a fraction)."""

    def stepped(self, state: RunState, epoch: float) -> None:
        """Records an optimizer step, ``epoch`` epochs (with a fraction) since the start."""

    def trained(self, state: RunState, epoch: float, metrics: dict[str, float]) -> None:
        """Records the means of the steps since the last training record."""

    def evaluated(self, state: RunState, epoch: float, split: str, metrics: dict[str, float]) -> None:
        """Records an evaluation."""

    def write(self, state: RunState, split: str, write: Callable[[Path, int], Mapping[str, ImageArray]]) -> None:
        """Writes files of an evaluation into results/, and shows the images that ``write`` returns."""

    def show(self, state: RunState, split: str, draw: Callable[[], Mapping[str, ImageArray]]) -> None:
        """Shows images of an evaluation, which ``draw`` draws."""

    def trace(self, state: RunState, split: str, curves: Callable[[], Mapping[str, NDArray[np.float64]]]) -> None:
        """Shows precision over recall of an evaluation, which ``curves`` computes."""

    def keep(self, draw: Callable[[], Mapping[str, ImageArray]]) -> None:
        """Keeps images of the training data, which ``draw`` draws."""

    def save(self, state: RunState, content: dict[str, Any], best: bool) -> None:
        """Saves a checkpoint."""

    def minutes_due(self, every: float | None) -> bool:
        """Returns whether ``every`` minutes have passed since the last checkpoint."""
        return False

    def end(self, outcome: str) -> None:
        """Ends the record: training has finished, was interrupted or failed. Called once, or again with `failed`."""
