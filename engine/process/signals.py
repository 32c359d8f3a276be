"""Signals that ask a run to stop: they set a flag, which the training loop reads between steps.

Importing this file is cheap, so that the handlers stand before torch is imported: a signal that arrives during start-up
must not kill the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

_PR_SET_PDEATHSIG = 1  # from sys/prctl.h


def end_with_parent() -> None:
    """Has this process killed as soon as its parent is gone, where that can be had (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class StopRequest:
    """Remembers the first stop signal. A second SIGINT (Ctrl-C pressed twice) ends the process at once.

    torchrun passes a Ctrl-C on to its ranks, which the terminal has told already: under it, a second SIGINT that comes
    within a second is the same one.
    """

    def __init__(self, answers: bool = False) -> None:
        """
        Args:
            answers: Say on standard error what the first SIGINT leads to: the step under way may take a while.
        """
        self._answers = answers
        self.signal: signal.Signals | None = None
        self.before_the_end: Callable[[], object] | None = None
        """What the process does when a second SIGINT ends it; the handler calls it, whatever the main thread was at."""
        self.at_its_end = False
        """Whether that has begun: what other threads find wrong from then on follows from it."""
        self._first_interrupt: float | None = None
        self._same_within = 1.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0

    def __bool__(self) -> bool:
        return self.signal is not None

    def install(self) -> StopRequest:
        """Handles all of :data:`STOP_SIGNALS` from now on. Returns itself."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)
        return self

    def hear(self, name: str) -> None:
        """Takes the signal ``name``, sent to another rank, as if it had come here, where none has come before."""
        if self.signal is None:
            self.signal = signal.Signals[name]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._first_interrupt is None:
                self._first_interrupt = now
                if self._answers:
                    os.write(
                        2, b"\nstopping when this step is done and saved; Ctrl-C again ends at once, without saving\n"
                    )
            elif now - self._first_interrupt >= self._same_within:
                os.write(2, b"\nended at once, without saving\n")
                last, self.before_the_end, self.at_its_end = self.before_the_end, None, True
                with contextlib.suppress(Exception):
                    if last is not None:
                        last()
                os._exit(128 + number)


class SignalPipe:
    """Tells another thread of signals while the main one waits in C++, where Python calls no handlers.

    Python writes each signal's number into it as it comes (:func:`signal.set_wakeup_fd`). Whoever had asked for them
    before is told too. The main thread makes it and calls :meth:`detach`, the other one all else.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def take(self) -> bytes:
        """Returns the numbers of the signals since the last call, a byte each; does not wait for any."""
        try:
            numbers = os.read(self._read, 4096)
        except BlockingIOError:
            return b""
        if self._before != -1:
            with contextlib.suppress(OSError):  # full, or closed meanwhile
                os.write(self._before, numbers)
        return numbers

    def detach(self) -> None:
        """Has signals written to where they went before. Somebody who has asked for them since keeps them."""
        current = signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
        if current != self._write:
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)

    def close(self) -> None:
        """Gives its descriptors back, once it is detached."""
        os.close(self._write)
        os.close(self._read)
