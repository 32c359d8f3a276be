"""metrics.jsonl, one record a line, and the same numbers for TensorBoard."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from engine.board.events import Board, scalars_of
from engine.board.place import board_for
from engine.errors import UserError
from engine.files import write_atomic
from engine.run_folder.paths import RunDir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MEASURED = ("time", "images_per_second", "images_per_second_per_device", "data_wait_fraction", "memory_gb")
"""What a record holds that no two runs of the same configuration have in common."""


NO_METRIC = ("step", "epoch", "split", "time", "source", "checkpoint", "changes")
"""What a record holds besides metrics."""
MOST_POINTS = 400
"""Points of a curve."""


class MetricWriter:
    """Appends records to a run's metrics.jsonl and TensorBoard.

    ``name``: the run's readable name, by which TensorBoard calls it. Both files are opened with the first record. Each
    line reaches the operating system at once, and the disk with :meth:`flush`. On a disk that is full records wait in
    memory until there is room.
    """

    def __init__(self, run_dir: RunDir, tensorboard: bool = True, name: str = "") -> None:
        self._path = run_dir.metrics
        self._board = Board(board_for(run_dir.path, name)) if tensorboard else None
        self._file: BinaryIO | None = None
        self._last_step: dict[str, int] = {}
        self._waiting: list[bytes] = []
        self._writing = threading.Lock()

    def write(self, step: int, epoch: float, split: str, metrics: dict[str, float], **tags: str) -> None:
        """Writes one record, of the state after ``step`` optimizer steps.

        Values that are not finite become null. Records with a ``source`` tag come from outside the run (evaluation of
        a checkpoint): their steps need not increase, and TensorBoard does not see them.

        Raises:
            ValueError: ``step`` is not beyond the split's last record.
        """
        self._open()
        own = "source" not in tags
        if own and step <= self._last_step.get(split, -1):
            raise ValueError(f"{split} records have reached step {self._last_step[split]}; step {step} is no progress")
        values = {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
        record: dict[str, Any] = {
            "step": step,
            "epoch": round(float(epoch), 6),
            "split": split,
            "time": round(time.time(), 3),
            **values,
            **tags,
        }
        with self._writing:
            self._waiting.append(json.dumps(record, allow_nan=False).encode() + b"\n")
        try:
            self._append()
        except OSError as error:
            if len(self._waiting) == 1:
                log.warning("%s cannot be written: %s; records wait in memory", self._path, error.strerror or error)
        if own:
            self._last_step[split] = step
        if own and self._board is not None:
            self._board.scalars(split, values, step)

    def show(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Shows numbers in TensorBoard alone, under ``group/name``."""
        if self._board is not None:
            self._board.scalars(group, values, step)

    def curve(self, tag: str, points: NDArray[np.float64], step: int) -> None:
        """Writes precision over recall for TensorBoard: ``points`` (6, T) as of :mod:`engine.plots.thresholds`."""
        if self._board is not None:
            true, false, true_not, false_not, precision, recall = points
            counts = true, false, true_not, false_not
            self._board.add(
                lambda writer: writer.add_pr_curve_raw(tag, *counts, precision, recall, step, points.shape[1])
            )

    def image(self, tag: str, image: Any, step: int) -> None:
        """Writes an image for TensorBoard: (H, W, 3), uint8 or floats in [0, 1]."""
        if self._board is not None:
            self._board.add(lambda writer: writer.add_image(tag, image, step, dataformats="HWC"))

    def resume_at(self, step: int, evaluated: bool = True, every: int = 1) -> None:
        """Forgets what lies beyond ``step``, since the run goes on from there and will write it again.

        What TensorBoard has seen beyond it is marked as void. ``evaluated``: False if the run goes on with the
        evaluation of ``step``, whose record is then forgotten too. ``every``: steps between records, so that before the
        first one nothing is missed.
        """
        self.close()
        self._last_step = {}
        kept: list[dict[str, Any]] = []
        if step >= every and not self._path.exists():
            log.warning("%s is not there: the records up to step %d are missing", self._path, step)
        if self._path.exists():
            lines = [
                (line, record)
                for line, record in _lines(self._path)
                if record["step"] < step + (evaluated or record["split"] == "train" or "source" in record)
            ]
            write_atomic(self._path, "".join(f"{line}\n" for line, _ in lines))
            kept = [record for _, record in lines if "source" not in record]
        if self._board is not None:
            first_void = step + evaluated if step else 0  # a run's beginning shows its training images again
            # TensorBoard's void begins with a step, so what is kept of that step has to be told again.
            repeated = [scalars_of(record) for record in kept if record["step"] >= first_void]
            self._board.purge(first_void, repeated)

    def flush(self) -> None:
        """Has everything written so far survive a crash of the machine. May be called by another thread.

        Raises:
            OSError: metrics.jsonl cannot be written.
        """
        if self._file is not None:
            self._append()
            os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Flushes and closes; a later record opens again."""
        if self._file is not None:
            try:
                self.flush()
            except OSError as error:
                log.error("%d records are lost: %s: %s", len(self._waiting), self._path, error.strerror or error)
            self._file.close()
            self._file, self._waiting = None, []
        if self._board is not None:
            self._board.close()

    def _open(self) -> None:
        if self._file is not None:
            return
        if self._path.exists():
            content = self._path.read_bytes()
            if (whole := content.rfind(b"\n") + 1) < len(content):
                os.truncate(self._path, whole)  # a writer was killed in the middle of a line
            for _, record in _lines(self._path):
                if "source" not in record:
                    self._last_step[record["split"]] = record["step"]
        # Unbuffered, so that a line is one write and a killed process leaves whole lines.
        self._file = self._path.open("ab", buffering=0)

    def _append(self) -> None:
        """Writes what waits, wholly or not at all."""
        with self._writing:
            if not self._waiting or self._file is None:
                return
            size, content = os.fstat(self._file.fileno()).st_size, b"".join(self._waiting)
            try:
                if self._file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(self._file.fileno(), size)
                raise
            self._waiting.clear()


def read_metrics(path: Path, split: str | None = None) -> list[dict[str, Any]]:
    """Reads the records of a metrics.jsonl, all or one split's, in their order; a last line cut short is left out.

    Raises:
        UserError: the file cannot be read, or a line before the last is no record.
    """
    return [record for _, record in _lines(path) if split is None or record["split"] == split]


class Line(NamedTuple):
    """A metric over a run, at most :data:`MOST_POINTS` of its records."""

    steps: list[float]
    epochs: list[float | None]
    hours: list[float | None]
    """At work since the first start; None where that is not known."""
    values: list[float | None]
    """None where the value was not finite."""


def lines_of(records: Sequence[Mapping[str, Any]], spans: Sequence[tuple[float, float]]) -> dict[str, Line]:
    """Returns the curve of each metric, by ``split.metric``; of many records some at even distances, and the last.

    Args:
        spans: from when to when each start was at work, in seconds since 1970.
    """
    lines: dict[str, Line] = {}
    for split in dict.fromkeys(record["split"] for record in records):
        own = [record for record in records if record["split"] == split]
        chosen = own[:: -(-len(own) // MOST_POINTS)]
        chosen += own[-1:] if chosen[-1] is not own[-1] else []
        for record in chosen:
            at = record.get("time")
            worked = [min(max(at - begin, 0.0), end - begin) for begin, end in spans] if at else []
            hours = sum(worked) / 3600 if worked else None
            for name, value in record.items():
                if name not in NO_METRIC and (value is None or isinstance(value, int | float)):
                    line = lines.setdefault(f"{split}.{name}", Line([], [], [], []))
                    line.steps.append(record["step"])
                    line.epochs.append(record.get("epoch"))
                    line.hours.append(hours)
                    line.values.append(value)
    return lines


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns each whole line with its record."""
    try:
        *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    parsed = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            record["step"], record["split"]
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path}:{number}: is not a record of metrics: {line[:80]!r}; remove this line") from None
        parsed.append((line, record))
    return parsed
