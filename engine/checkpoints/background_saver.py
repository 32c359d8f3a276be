"""Checkpoints written on a thread of their own, from a snapshot in memory, while training goes on."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.checkpoints import store
from engine.checkpoints.disk_space import free_bytes, shown_bytes
from engine.checkpoints.host_copy import Snapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Pending:
    """A checkpoint that is to be written."""

    step: int
    best: bool
    state: dict[str, Any]
    memory: Snapshot
    """What ``state`` lies in."""


class Saver:
    """Writes checkpoints into ``folder``; the training loop waits only for a copy in memory.

    In normal operation there is one snapshot: a save that is due before the one before is on disk waits for it. A
    second one would double the host memory taken, and help only a run that saves for longer than it trains.

    A disk that is full or cannot be written is worth a warning, not the run: the snapshot is kept and tried again,
    every ``retry_seconds`` and with each newer one, and so is the newest best one if it is another.

    The owner calls :meth:`close` before the process ends. A process that is killed leaves the checkpoints before
    untouched.

    Args:
        folder: made when it is needed; it has no other writer.
        keep: newest checkpoints kept, besides the best.
        before_publish: called on the thread before a checkpoint gets its name; an OSError counts as one of the save.
        retry_seconds: between attempts while the disk cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        before_publish: Callable[[], None] = lambda: None,
        retry_seconds: float = 30.0,
    ) -> None:
        self._folder, self._keep = folder, keep
        self._before_publish, self._retry_seconds = before_publish, retry_seconds
        self._changed = threading.Condition()  # guards all that follows
        self._pending: list[_Pending] = []  # the newest, and before it the newest best if that is another
        self._spare = Snapshot()
        self._due = self._busy = self._ended = False
        self._fault: BaseException | None = None
        self._tidied = self._warned = False  # the thread's own
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def save(self, step: int, state: dict[str, Any], best: bool = False) -> None:
        """Copies ``state``, whose tensors may change as soon as this returns, and has the copy written.

        Args:
            state: dicts, lists and tuples of tensors and plain types, see
                :meth:`engine.checkpoints.host_copy.Snapshot.take`.
            best: whether ``best.pt`` is to name it.

        Raises:
            Exception: what went wrong on the thread since the last call, if it was no OSError.
        """
        with self._changed:
            self._changed.wait_for(self._idle)
            self._raise_fault()
            if self._ended:
                raise RuntimeError("checkpoints can no longer be saved: the saver has ended")
            superseded = [item for item in self._pending if best or not item.best]
            self._pending = [item for item in self._pending if item not in superseded]
            if superseded:
                memory = superseded[-1].memory
            else:
                memory, self._spare = self._spare, Snapshot()
            self._pending.append(_Pending(step, best, memory.take(state), memory))
            self._due = True
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until everything handed over is on disk, at most ``timeout`` seconds.

        Returns:
            False if that is not so: the time has run out, or the disk cannot be written.

        Raises:
            Exception: as :meth:`save`.
        """
        with self._changed:
            idle = self._changed.wait_for(self._idle, timeout)
            self._raise_fault()
            return idle and not self._pending

    def close(self, timeout: float | None = None) -> bool:
        """Waits as :meth:`wait` does, with one more attempt at what could not be written, and ends the thread.

        What is being written when the time has run out is still completed if the process lives that long.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        done = self.wait(timeout)
        with self._changed:
            if self._pending and self._idle() and not self._ended:
                self._due = True
                self._changed.notify_all()
        try:
            done = done or self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
        if self._idle():
            self._thread.join()
        return done

    def _idle(self) -> bool:
        """Returns whether the thread has nothing to do, or nothing but wait for room on the disk."""
        return not (self._due or self._busy)

    def _raise_fault(self) -> None:
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    # -- the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while pending := self._next():
                self._attempt(pending)
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        except BaseException as fault:
            with self._changed:
                self._fault, self._ended, self._due, self._busy = fault, True, False, False
                self._changed.notify_all()

    def _next(self) -> list[_Pending]:
        """Waits for something to write, or for the next attempt; empty if the saver has ended."""
        with self._changed:
            while not self._due and not self._ended:
                waited_for = self._changed.wait(self._retry_seconds if self._pending else None)
                self._due = self._due or (not waited_for and not self._ended)
            if not self._due:
                return []
            self._due, self._busy = False, True
            return list(self._pending)

    def _attempt(self, pending: list[_Pending]) -> None:
        """Writes the older one first, since :func:`engine.checkpoints.store.save` removes files of later steps."""
        for item in pending:
            try:
                if not self._tidied:
                    store.tidy(self._folder, self._keep, log.warning)
                path = store.save(
                    self._folder, item.step, item.state, self._keep, item.best, before_publish=self._before_publish
                )
            except OSError as error:
                self._tidied = False
                self._warn(item, error)
                return
            self._tidied = True
            if self._warned:
                log.info("checkpoint %s is written; saving works again", path)
                self._warned = False
            with self._changed:
                self._pending.remove(item)
                self._spare = item.memory

    def _warn(self, item: _Pending, error: OSError) -> None:
        """Warns once until saving works again."""
        path, cause = store.step_file(self._folder, item.step), error.strerror or error
        if self._warned:
            log.debug("checkpoint %s still cannot be written: %s", path, cause)
            return
        self._warned = True
        log.warning(
            "checkpoint %s cannot be written: %s; training goes on, what was saved before is kept, and it is tried "
            "again every %g s: %s",
            path,
            cause,
            self._retry_seconds,
            f"make room ({self._free()})" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend that",
        )

    def _free(self) -> str:
        try:
            return f"{shown_bytes(free_bytes(self._folder))} free there"
        except OSError:
            return "its file system does not answer"
