"""A run's own clock: it saves in time even where Slurm was not asked for a signal before the end."""

from __future__ import annotations

import logging
import signal
import threading
import time

from engine.process.signals import StopRequest

log = logging.getLogger(__name__)

LEAST_MARGIN = 15.0
"""Seconds before the end that are kept for leaving, besides a step and two saves."""
SHORT = 240.0
"""Seconds of which so many go into starting and saving that little is left for training."""
_LOOK_EVERY = 1.0


class Walltime:
    """Asks the run to stop, as a signal would, so long before ``end`` that a step and its checkpoint still fit.

    Warns of an end that is too near for a job to get anywhere, restarted as often as may be.

    Args:
        end: when the job's time is up, in seconds since 1970; None: never.
    """

    def __init__(self, end: float | None, stop: StopRequest) -> None:
        self._stop = stop
        self._longest_step = self._longest_save = 0.0
        self._last: float | None = None
        self._closed = threading.Event()
        if end is not None:
            left = end - time.time()
            if left < SHORT:
                log.warning("the job's time is up in %.0f s, of which saving takes a part: ask for more --time", left)
            threading.Thread(target=self._look, args=(end,), name="walltime", daemon=True).start()

    @property
    def margin(self) -> float:
        """Returns the seconds that stopping takes at most, from what was seen so far."""
        return LEAST_MARGIN + self._longest_step + 2 * self._longest_save

    def stepped(self) -> None:
        """Notes that a step has ended."""
        now = time.monotonic()
        if self._last is not None:
            self._longest_step = max(self._longest_step, now - self._last)
        self._last = now

    def paused(self) -> None:
        """Notes that what comes until the next step ends is not all step: an evaluation, or a wait for a disk."""
        self._last = None

    def saved(self, seconds: float) -> None:
        """Notes how long a checkpoint took to write."""
        self._longest_save = max(self._longest_save, seconds)

    def close(self) -> None:
        """Ends the watch: the run has ended."""
        self._closed.set()

    def _look(self, end: float) -> None:
        while not self._closed.wait(_LOOK_EVERY):
            left = end - time.time()
            if left <= self.margin:
                log.info("the job's time is up in %.0f s: saving, to be continued", left)
                self._stop.hear(signal.SIGUSR1.name)
                return
