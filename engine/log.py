"""Logging of all ranks: one file each, and a console that shows rank 0 and what is wrong with the others.

Handlers sit on the root logger, so that other packages' warnings are kept as well; levels are only set for this
project's own packages.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tqdm import tqdm

FILE_ONLY = {"file_only": True}
"""``log.info(..., extra=FILE_ONLY)``: for the file alone, since the console shows it in another way."""

HARMLESS = "Grad strides do not match bucket view strides"
"""What DDP warns of where a 1x1 convolution's weights have strides that mean the same memory; for the file alone."""

_CLEAR_LINE = "\r\x1b[K"


class RunLog(AbstractContextManager["RunLog"]):
    """Logging as :func:`setup_logging` set it up. A context manager; leaving it restores logging as it was."""

    def __init__(self, rank: int, console: logging.Handler) -> None:
        self._rank = rank
        self._until_file = logging.handlers.MemoryHandler(1000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self._handlers: list[logging.Handler] = [console, self._until_file]
        self._levels = {name: logging.getLogger(name).level for name in own_packages()}
        for handler in self._handlers:
            logging.getLogger().addHandler(handler)

    def attach_file(self, path: Path) -> None:
        """Logs to ``path`` as well, beginning with what was logged before this call."""
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(path, mode="a", encoding="utf-8", errors="backslashreplace")
        place = f"{socket.gethostname()} rank {self._rank}".replace("%", "%%")
        file.setFormatter(logging.Formatter(f"%(asctime)s {place} %(levelname)s %(name)s: %(message)s"))
        self._until_file.setTarget(file)
        self._drop(self._until_file)
        logging.getLogger().addHandler(file)
        self._handlers.append(file)

    def close(self) -> None:
        """Closes the file and takes everything back."""
        logging.captureWarnings(False)
        for handler in list(self._handlers):
            self._drop(handler)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

    def _drop(self, handler: logging.Handler) -> None:
        logging.getLogger().removeHandler(handler)
        self._handlers.remove(handler)
        handler.flush()
        handler.close()

    def __exit__(self, *error: object) -> None:
        self.close()


def setup_logging(rank: int, world_size: int) -> RunLog:
    """Logs this project's packages to the console, and to the file that :meth:`RunLog.attach_file` names.

    Rank 0 shows information and worse; other ranks warnings and errors, with their number in front.
    """
    log = RunLog(rank, _Console(rank, f"[rank {rank}] " if world_size > 1 and rank > 0 else ""))
    for name in own_packages():
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    return log


def on_terminal(environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether somebody looks at standard output as it comes. ``srun --unbuffered`` only makes it look so."""
    return sys.stdout.isatty() and ("SLURM_STEP_ID" not in environment or "SLURM_PTY_PORT" in environment)


def own_packages() -> list[str]:
    """Returns the project's top-level packages, which lie beside this one, and the module that was started."""
    return ["__main__", *sorted(path.parent.name for path in Path(__file__).parents[1].glob("*/__init__.py"))]


class _MayBeFull(logging.Handler):
    """Where lines are lost once there is no room for them, or nobody to read them: the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _LogFile(_MayBeFull, logging.FileHandler):
    """A rank's file."""


class _Console(_MayBeFull):
    """Lines like ``21:03:04 message`` on standard output, above a progress bar if there is one."""

    def __init__(self, rank: int, prefix: str) -> None:
        super().__init__(logging.INFO if rank == 0 else logging.WARNING)
        self._rank, self._prefix = rank, prefix
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "py.warnings" and (self._rank > 0 or HARMLESS in record.getMessage()):
            return False  # Python's warnings are the same on each rank
        return not getattr(record, "file_only", False) and bool(super().filter(record))

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            time, _, message = text.partition(" ")
            text = f"{time} {record.levelname.lower()}: {message}"
        return self._prefix + text

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # The bar is another process's for ranks other than 0; tqdm only clears its own.
            clear = _CLEAR_LINE if self._rank > 0 and on_terminal() else ""
            tqdm.write(f"{clear}{self.format(record)}\n", file=sys.stdout, end="")  # in one piece, for ranks share it
            sys.stdout.flush()
        except Exception:
            self.handleError(record)
