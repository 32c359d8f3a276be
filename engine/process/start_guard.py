"""Until the ranks have met: the end of the launcher, or a request to stop, ends a rank that nobody else would end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

from engine.errors import EXIT_INTERRUPTED
from engine.process.signals import STOP_SIGNALS, SignalPipe, StopRequest

STOP_SECONDS = 8.0
"""How long a rank that was asked to stop goes on trying to meet the others."""
_LOOK_EVERY = 0.5


class StartGuard:
    """Ends this process during its start, after which the watchdog does so with more care.

    Importing torch and meeting the other ranks take long, the latter up to a timeout if one of them or the launcher has
    died. There is nothing to save yet. The main thread may wait for them in C++, and hear of no signal: this one does.
    Does nothing in a process that no launcher has started: that one meets nobody, and outlives whoever typed it.
    """

    def __init__(
        self,
        stop: StopRequest,
        environment: Mapping[str, str] = os.environ,
        exit_process: Callable[[int], object] = os._exit,
        stop_seconds: float = STOP_SECONDS,
        launcher: int | None = None,
    ) -> None:
        """Begins to watch.

        Args:
            launcher: number of the process that started this one, for who knows it; else it is the parent of a process
                with torchrun's or srun's variables.
        """
        started = "RANK" in environment or ("SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment)
        self.launcher_pid = launcher if launcher is not None else os.getppid() if started else None
        """Whose end is this process's; None if no launcher has started it."""
        self._stop, self._stop_seconds, self._exit = stop, stop_seconds, exit_process
        self._closed = threading.Event()
        self._pipe: SignalPipe | None = None
        if self.launcher_pid is not None:
            self._pipe = SignalPipe()
            threading.Thread(target=self._watch, args=(self._pipe,), name="start guard", daemon=True).start()

    def close(self) -> None:
        """Ends the watch, on the main thread: the ranks have met."""
        if self._pipe is not None and not self._closed.is_set():
            self._pipe.detach()
        self._closed.set()

    def _watch(self, pipe: SignalPipe) -> None:
        self._look(pipe)
        if self._closed.is_set():
            pipe.take()  # for whoever asked before
            pipe.close()

    def _look(self, pipe: SignalPipe) -> None:
        deadline: float | None = None
        while not self._closed.wait(_LOOK_EVERY):
            if os.getppid() != self.launcher_pid:
                self._end(f"error: the launcher (pid {self.launcher_pid}) vanished", 1)
                return
            for number in pipe.take():
                if number in STOP_SIGNALS:
                    self._stop.hear(signal.Signals(number).name)
            if self._stop.signal is not None and deadline is None:
                deadline = time.monotonic() + self._stop_seconds
            if self._stop.signal is not None and deadline is not None and time.monotonic() > deadline:
                self._end(f"stopped by {self._stop.signal.name} before all ranks had met", EXIT_INTERRUPTED)
                return

    def _end(self, message: str, code: int) -> None:
        print(message, file=sys.stderr, flush=True)
        self._exit(code)
