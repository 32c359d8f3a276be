"""The process that started this one. When it dies, its ranks have to end: nobody else would end them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping

_LOOK_EVERY = 0.5


class LauncherGuard:
    """Ends this process if its launcher dies, until :class:`engine.watch.watch.Watch` does so with more care.

    Importing torch and meeting the other ranks take long, the latter up to a timeout if the launcher died meanwhile.
    Does nothing in a process that neither torchrun nor srun has started.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, exit_process: Callable[[int], object] = os._exit
    ) -> None:
        self.pid = os.getppid()
        self._exit = exit_process
        self._closed = threading.Event()
        if "RANK" in environment or ("SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment):
            threading.Thread(target=self._look, name="launcher guard", daemon=True).start()

    @property
    def gone(self) -> bool:
        """Whether the launcher has ended: its children then have another parent."""
        return os.getppid() != self.pid

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(_LOOK_EVERY):
            if self.gone:
                print(f"error: the launcher (pid {self.pid}) vanished", file=sys.stderr, flush=True)
                self._exit(1)
                return
