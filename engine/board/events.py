"""A run's numbers and images as TensorBoard's events."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.board.place import CARD, event_files

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""Between attempts while the disk cannot be written."""

Scalars = tuple[str, Mapping[str, float | None], int]
"""Split, values and step."""


class Board:
    """Writes event files into ``folder``, opened with the first event.

    A disk that is full costs no run: a new file is begun later, with all scalars that may not have reached the disk.
    Images of that time are lost.
    """

    def __init__(self, folder: Path, retry_seconds: float = RETRY_SECONDS) -> None:
        self._folder, self._retry_seconds = folder, retry_seconds
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None
        self._unsure: list[Scalars] = []
        self._retry_at = 0.0
        self._lost = False
        self._excepthook = threading.excepthook

    def purge(self, step: int, repeated: Iterable[Scalars] = ()) -> None:
        """Marks what TensorBoard has seen from ``step`` on as void, once there is something to write; ``repeated`` is
        what holds nevertheless.

        A run that begins again removes its files: a mark would void what the card says as well.
        """
        self.close()
        self._purge_step, self._unsure = step or None, list(repeated)
        for file in event_files(self._folder) if not step else []:
            if file.name != CARD:
                with contextlib.suppress(OSError):
                    file.unlink()

    def scalars(self, split: str, values: Mapping[str, float | None], step: int) -> None:
        """Values under ``split/name``; None is shown as not a number."""
        self._unsure.append((split, values, step))
        if self._writer is None:
            self.add(lambda writer: None)  # opening writes all that is unsure
        else:
            self.add(lambda writer: _add(writer, self._unsure[-1:]))

    def add(self, write: Callable[[SummaryWriter], object]) -> None:
        """Has ``write`` add something."""
        if self._writer is None and time.monotonic() < self._retry_at:
            return
        try:
            if self._writer is None:
                self._writer = self._open()
            write(self._writer)
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        """Has everything written so far survive a crash of the process. May be called by another thread."""
        writer, certain = self._writer, len(self._unsure)
        if writer is None:
            return
        try:
            writer.flush()
            del self._unsure[:certain]
            if self._lost:
                log.info("TensorBoard's events are written again")
                self._lost = False
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Flushes and closes; a later event opens again."""
        self._retry_at = 0.0
        if self._writer is None and self._lost:
            self.add(lambda writer: None)
        self.flush()
        if self._lost:
            log.error("TensorBoard's events could not be written: metrics.jsonl has all of them")
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if threading.excepthook == self._thread_died:
            threading.excepthook = self._excepthook

    def _open(self) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter  # a second of imports, which other ranks spare

        threading.excepthook = self._thread_died
        writer = SummaryWriter(os.fspath(self._folder), purge_step=self._purge_step)
        _add(writer, self._unsure)
        self._purge_step = None
        return writer

    def _thread_died(self, died: threading.ExceptHookArgs) -> None:
        """Leaves it to the next call to tell of a disk that TensorBoard's thread cannot write."""
        if not (isinstance(died.exc_value, OSError) and type(died.thread).__module__.startswith("tensorboard.")):
            self._excepthook(died)

    def _give_up(self, error: OSError) -> None:
        """Leaves the open file; what it has lost is written into another one."""
        if not self._lost:
            log.warning("TensorBoard's events cannot be written: %s; trying again later", error.strerror or error)
        self._writer, self._lost = None, True
        self._retry_at = time.monotonic() + self._retry_seconds
        if self._unsure and self._purge_step is None:
            self._purge_step = min(step for _, _, step in self._unsure)


def _add(writer: SummaryWriter, scalars: Iterable[Scalars]) -> None:
    for split, values, step in scalars:
        for name, value in values.items():
            writer.add_scalar(f"{split}/{name}", math.nan if value is None else value, step)


def scalars_of(record: Mapping[str, Any]) -> Scalars:
    """Returns the values of a record of metrics.jsonl that TensorBoard shows."""
    values = {name: value for name, value in record.items() if name not in ("step", "epoch", "split", "time")}
    return record["split"], values, record["step"]
