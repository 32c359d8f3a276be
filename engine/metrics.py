"""metrics.jsonl, one record a line, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from engine.errors import UserError
from engine.files import write_atomic
from engine.run_dir import RunDir

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class MetricWriter:
    """Appends records to a run's metrics.jsonl and TensorBoard; does nothing where ``enabled`` is false.

    Both are opened with the first record. Each line reaches the operating system at once, and the disk with
    :meth:`flush`.
    """

    def __init__(self, run_dir: RunDir, enabled: bool = True, tensorboard: bool = True) -> None:
        self._run_dir = run_dir
        self._enabled = enabled
        self._tensorboard = enabled and tensorboard
        self._file: BinaryIO | None = None
        self._board: SummaryWriter | None = None
        self._purge_step: int | None = None
        self._repeated: list[dict[str, Any]] = []
        self._last_step: dict[str, int] = {}

    def write(self, step: int, epoch: float, split: str, metrics: dict[str, float], **tags: str) -> None:
        """One record, of the state after ``step`` optimizer steps.

        Values that are not finite become null. Records with a ``source`` tag come from outside the run (evaluation of
        a checkpoint): their steps need not increase, and TensorBoard does not see them.

        Raises:
            ValueError: ``step`` is not beyond the split's last record.
        """
        if not self._enabled:
            return
        file = self._open()
        own = "source" not in tags
        if own and step <= self._last_step.get(split, -1):
            raise ValueError(f"{split} records have reached step {self._last_step[split]}; step {step} is no progress")
        values = {name: float(value) for name, value in metrics.items()}
        record: dict[str, Any] = {
            "step": step,
            "epoch": round(float(epoch), 6),
            "split": split,
            "time": round(time.time(), 3),
        }
        record |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        record |= tags
        file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        if own:
            self._last_step[split] = step
        if own and self._tensorboard:
            _add_scalars(self._open_board(), split, values, step)

    def text(self, tag: str, text: str, step: int) -> None:
        """Markdown text for TensorBoard."""
        if self._tensorboard:
            self._open_board().add_text(tag, text, step)

    def image(self, tag: str, image: Any, step: int) -> None:
        """A picture for TensorBoard: (3, H, W), uint8 or floats in [0, 1]."""
        if self._tensorboard:
            self._open_board().add_image(tag, image, step)

    def figure(self, tag: str, figure: Any, step: int) -> None:
        """A matplotlib figure for TensorBoard, which closes it."""
        if self._tensorboard:
            self._open_board().add_figure(tag, figure, step)

    def resume_at(self, step: int, evaluated: bool = True) -> None:
        """Forget what lies beyond ``step``, since the run goes on from there and will write it again.

        What TensorBoard has seen beyond it is marked as void. ``evaluated``: False if the run goes on with the
        evaluation of ``step``, whose record is then forgotten too.
        """
        if not self._enabled:
            return
        self.close()
        self._last_step = {}
        self._purge_step = step + 1 if evaluated else step
        path = self._run_dir.metrics
        if path.exists():
            kept = [
                (line, record)
                for line, record in _lines(path)
                if record["step"] < step + (evaluated or record["split"] == "train" or "source" in record)
            ]
            write_atomic(path, "".join(f"{line}\n" for line, _ in kept))
            # TensorBoard's void begins with a step, so what is kept of that step has to be told again.
            self._repeated = [record for _, record in kept if record["step"] == step and "source" not in record]

    def flush(self) -> None:
        """Have everything written so far survive a crash of the machine."""
        file, board = self._file, self._board  # another thread may flush
        if file is not None:
            os.fsync(file.fileno())
        if board is not None:
            board.flush()

    def close(self) -> None:
        """Flush and close; a later record opens again."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._board is not None:
            self._board.close()
            self._board = None

    def _open(self) -> BinaryIO:
        if self._file is None:
            path = self._run_dir.metrics
            if path.exists():
                _drop_torn_line(path)
                for _, record in _lines(path):
                    if "source" not in record:
                        self._last_step[record["split"]] = record["step"]
            # Unbuffered, so that a line is one write and a killed process leaves whole lines.
            self._file = path.open("ab", buffering=0)
        return self._file

    def _open_board(self) -> SummaryWriter:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter  # a second of imports, which other ranks spare

            self._board = SummaryWriter(os.fspath(self._run_dir.tensorboard), purge_step=self._purge_step)
            for record in self._repeated if self._purge_step is not None else []:
                if record["step"] >= self._purge_step:
                    values = {k: v for k, v in record.items() if k not in ("step", "epoch", "split", "time")}
                    _add_scalars(self._board, record["split"], values, record["step"])
            self._purge_step, self._repeated = None, []
        return self._board


def _add_scalars(board: SummaryWriter, split: str, values: Mapping[str, float | None], step: int) -> None:
    for name, value in values.items():
        board.add_scalar(f"{split}/{name}", math.nan if value is None else value, step)


def read_metrics(path: Path, split: str | None = None) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, all or one split's, in their order; a last line cut short is left out.

    Raises:
        UserError: the file cannot be read, or a line before the last is no record.
    """
    return [record for _, record in _lines(path) if split is None or record["split"] == split]


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each whole line with its record."""
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
            raise UserError(f"{path}:{number}: is not a record of metrics: {line[:80]!r}") from None
        parsed.append((line, record))
    return parsed


def _drop_torn_line(path: Path) -> None:
    """Cut off what a writer killed in the middle of a line left behind the last line end."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
