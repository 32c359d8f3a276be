"""status.json: how a run is doing, for whoever looks from outside."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

from engine.files import read_json, write_atomic

log = logging.getLogger(__name__)

STATES = ("queued", "running", "finished", "interrupted", "failed")
_NOTED_IF_SO = ("stopped_early", "skipped_in_row")
LOST_AFTER = 180.0
"""Seconds without an update after which a running run is taken for lost."""


class Status:
    """Writes status.json: a state or best result at once, how far the run is every ``interval`` seconds.

    A thread writes, so that a run in a long evaluation still shows that it lives and no training step waits for a disk.
    A disk that cannot be written is worth a warning, not the run.
    """

    def __init__(self, path: Path, interval: float = 10.0) -> None:
        previous = read_status(path) or {}
        self._path = path
        known = {"epoch": 0.0, "step": 0, "best": {}}
        self._content = {"state": "running", **{key: previous.get(key, none) for key, none in known.items()}}
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._warned = False
        self._write()
        self._thread = threading.Thread(target=self._beat, args=(interval,), name="status", daemon=True)
        self._thread.start()

    def update(self, **changes: Any) -> None:
        """Changes ``state``, ``epoch``, ``step`` or ``best``: step, epoch and value of the best evaluation.

        Or ``stopped_early`` and ``skipped_in_row``, the number of steps up to ``step`` that were skipped, which stand
        there only if early stopping has ended the run, or if there are any.
        """
        assert changes.keys() <= {"state", "epoch", "step", "best", *_NOTED_IF_SO}, changes
        assert changes.get("state", "running") in STATES, changes
        content = {**self._content, **changes}
        self._content = {key: value for key, value in content.items() if value or key not in _NOTED_IF_SO}
        if changes.keys() & {"state", "best"}:
            self._write()

    def close(self, state: str) -> None:
        """Writes the final state and stops the thread."""
        self._closed.set()
        self._thread.join()
        self.update(state=state)

    def end_at_once(self, state: str) -> None:
        """Writes the final state of a run that is ended in the midst of whatever it does, if it has none."""
        if self._content["state"] != "running":
            return
        self._closed.set()
        self._thread.join(1.0)  # it may wait for what this thread, interrupted, is at
        self._content = {**self._content, "state": state}
        write_atomic(self._path, self._text())

    def _text(self) -> str:
        return json.dumps({**self._content, "updated": round(time.time(), 3)}) + "\n"

    def _beat(self, interval: float) -> None:
        while not self._closed.wait(interval):
            self._write()

    def _write(self) -> None:
        with self._writing:
            try:
                write_atomic(self._path, self._text())
                self._warned = False
            except OSError as error:
                if not self._warned:
                    log.warning("%s cannot be written: %s; going on without", self._path, error.strerror)
                self._warned = True


def mark_failed(path: Path, step: int) -> None:
    """Changes the state in a status.json whose writer is gone to ``failed`` at ``step``, if there is one."""
    status = read_status(path)
    if status is None:
        return
    told = int(status.get("step", 0))
    if step > told:  # what is written may be half a minute old
        status |= {"step": step, "epoch": float(status.get("epoch", 0.0)) * step / max(1, told)}
    write_atomic(path, json.dumps({**status, "state": "failed", "updated": round(time.time(), 3)}) + "\n")


def read_status(path: Path) -> dict[str, Any] | None:
    """Reads a status.json, with state ``lost`` for a running run that has long not updated it.

    ``updated`` is in seconds since 1970. Returns None if there is no such file, or none that can be read.
    """

    def judged(status: dict[str, Any]) -> dict[str, Any]:
        lost = status["state"] == "running" and time.time() - float(status["updated"]) > LOST_AFTER
        return {**status, "state": "lost"} if lost else status

    return read_json(path, judged)
