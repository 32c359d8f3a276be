"""``python -m tests.gpu.findings MODULE:FUNCTION cuda|cpu FILE SECONDS RUNNER``: one stage, in a process of its own.

It leads its process group, which ends as soon as RUNNER, the number of the process that started it, is gone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_STACKS_AFTER = 0.9
"""Part of the time limit after which a stage that still runs shows the stacks of its threads."""


_LOOK_SECONDS = 0.5


class Findings:
    """What a stage finds, written to a file at once, so that it outlasts a crash and a time-out."""

    def __init__(self, device: str, file: Path) -> None:
        self.device = device
        """cuda or cpu."""
        self._file = file
        self.faults = 0

    @property
    def small(self) -> bool:
        """Whether this is a rehearsal on a CPU, whose models and images are small."""
        return self.device == "cpu"

    def figure(self, name: str, value: float | str) -> None:
        """Notes a figure for the table."""
        self._write({"figure": name, "value": value})

    def check(self, holds: bool, otherwise: str) -> None:
        """Notes a fault if something does not hold; the stage goes on."""
        if not holds:
            self.faults += 1
            self._write({"fault": otherwise})

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of a stage whose error is noted as a fault, and does not keep the rest from running."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            lines = str(error).splitlines()
            self.check(False, f"{name}: {type(error).__name__}: {lines[0] if lines else ''}")

    def _write(self, entry: dict[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _end_with(runner: int) -> None:
    while os.getppid() == runner:
        time.sleep(_LOOK_SECONDS)
    os.killpg(os.getpid(), signal.SIGKILL)


def main(work: str, device: str, file: str, seconds: str, runner: str) -> int:
    """Runs a stage; returns 1 if it found a fault."""
    threading.Thread(target=_end_with, args=(int(runner),), name="runner's end", daemon=True).start()
    faulthandler.dump_traceback_later(_STACKS_AFTER * float(seconds))
    findings = Findings(device, Path(file))
    module, _, function = work.partition(":")
    with findings.part(function):
        getattr(importlib.import_module(module), function)(findings)
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
