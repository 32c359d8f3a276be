"""What a run that fails leaves behind: its last log line, FAILED.json, its status."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from engine.commands.folder_recorder import record_failed
from engine.errors import EXIT_USER_ERROR
from engine.files import write_atomic
from engine.log import FILE_ONLY
from engine.process.signals import StopRequest
from engine.run_folder.failure import Failure, write_failure
from engine.run_folder.paths import RunDir
from engine.run_folder.writer_lock import RunLock
from engine.training.recorder import Recorder

log = logging.getLogger(__name__)


class FailureReport:
    """Called with a failure by whichever thread of this rank finds out about it."""

    def __init__(self, rank: int, stop: StopRequest | None = None) -> None:
        self._rank, self._stop = rank, stop
        self.folder: RunDir | None = None
        """The run's folder, once it has one."""
        self.task = ""
        """What the run trains."""
        self.recorder = Recorder()
        """What this rank records."""
        self.lock: RunLock | None = None
        """The right to write in the folder, on rank 0."""
        self.writer = ""
        """What the folder's lock says as long as it belongs to this start."""

    def __call__(self, failure: Failure) -> None:
        if self._stop is not None and self._stop.at_its_end:
            return
        if failure.exception and failure.traceback and failure.rank == self._rank:
            log.error("%s", failure.traceback.rstrip())
        if self.folder is not None and self._is_ours(self.folder):
            if write_failure(self.folder.failed, failure) and failure.rank == 0 != self._rank:
                record_failed(self.folder, self.task, failure.step)  # rank 0 can no longer
            self.recorder.end("failed")
        tell_torchrun(failure)
        self.release()
        if failure.exit_code != EXIT_USER_ERROR:
            log.error("%s", failure.reason)
            return
        log.error("%s", failure.reason, extra=FILE_ONLY)
        if self._rank == 0:
            sys.stderr.write(f"error: {failure.message}\n")  # in one piece: srun writes there too
            sys.stderr.flush()

    def _is_ours(self, folder: RunDir) -> bool:
        """Returns whether this start still writes in the folder; a stopped rank may find another at work there."""
        try:
            return folder.lock.read_text(encoding="utf-8") == self.writer
        except OSError:
            return False

    def release(self) -> None:
        """Lets others write in the folder."""
        if self.lock is not None:
            self.lock.release()


def tell_torchrun(failure: Failure, environment: Mapping[str, str] = os.environ) -> None:
    """Writes the cause where torchrun looks for it, as its ``record`` does, so that its summary shows it."""
    name = environment.get("TORCHELASTIC_ERROR_FILE")
    if name:
        extra = {"py_callstack": failure.reason, "timestamp": str(int(failure.time))}  # the former is what it shows
        content = {"message": {"message": failure.reason, "extraInfo": extra}}
        with contextlib.suppress(OSError):
            write_atomic(Path(name), json.dumps(content))
