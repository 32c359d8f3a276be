"""Commands ``python -m MODULE …`` as forks of a process that has torch loaded: no test waits for those imports again.

What runs is what a new interpreter would run, to its own end: arguments, environment, folder and output are its own,
and only modules are there before it asks for them. Each process of pytest prepares one when it first needs it.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.environment import ROOT, clean_environment

MODULES = (
    "timm",
    "torch.utils.tensorboard",
    "sklearn.datasets",
    "matplotlib.backends.backend_agg",
    "engine.commands.train",
    "engine.commands.evaluate",
    "engine.commands.predict",
    "classification.task",
    "classification.inference",
    "detection.task",
    "detection.inference",
)
AT_START = ("PYTHON", "OMP_", "GOMP_", "MKL_", "OPENBLAS_", "MALLOC_", "LD_", "HF_", "MPL", "TORCH_LOGS")
"""Variables of these are read while an interpreter starts, or a library is loaded or imported."""


def can_be_prepared(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether a fork does what a new interpreter would: it runs a module, and nothing else is told to its start."""

    def at_start(variables: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if name.startswith(AT_START)}

    return list(command[:2]) == [sys.executable, "-m"] and at_start(env) == at_start(_prepared().env)


def start(command: Sequence[str], env: Mapping[str, str], cwd: Path, output: Path) -> Forked:
    """Starts a command, which writes stdout and stderr to the file ``output``."""
    prepared = _prepared()
    return Forked(prepared, prepared.fork([list(command), dict(env), str(cwd), str(output)]))


class Forked:
    """A process that was forked for a command; what tests use of :class:`subprocess.Popen`."""

    def __init__(self, prepared: _Prepared, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._prepared = prepared

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._prepared.end(self.pid)
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Prepared:
    """The process that forks, from the side of pytest: requests are lines, and so are process numbers and codes."""

    def __init__(self) -> None:
        self.env = clean_environment()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.prepared"],
            env=self.env,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._lines = _Lines(self._process.stdout.fileno())  # type: ignore[union-attr]
        self._ends: dict[int, int] = {}
        atexit.register(self._process.kill)

    def fork(self, request: list[Any]) -> int:
        self._process.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        while True:
            if (pid := self._read(None)) is not None:
                return pid

    def end(self, pid: int) -> int | None:
        """Returns the exit code of a fork that has ended, or None."""
        while self._lines.ready(0):
            self._read(0)
        return self._ends.pop(pid, None)

    def _read(self, timeout: float | None) -> int | None:
        """Notes a line's exit code, or returns the number of the process that it says was started."""
        if not self._lines.ready(timeout):
            return None
        line = self._lines.next()
        assert line is not None, f"the process that forks others ended with {self._process.wait()}"
        pid, code = json.loads(line)
        if code is None:
            return int(pid)
        self._ends[pid] = code
        return None


@functools.cache
def _prepared() -> _Prepared:
    return _Prepared()


class _Lines:
    """Lines that come through a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def ready(self, timeout: float | None) -> bool:
        return b"\n" in self._rest or bool(select.select([self._descriptor], [], [], timeout)[0])

    def next(self) -> bytes | None:
        """Waits for the next line; None: the other side has ended."""
        while b"\n" not in self._rest:
            part = os.read(self._descriptor, 1 << 16)
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def close(self) -> None:
        os.close(self._descriptor)


def _serve() -> list[Any] | None:
    """Forks for each request; returns it in the fork, and None here once pytest has ended."""
    requests, replies = _Lines(os.dup(0)), os.dup(1)
    os.dup2(2, 1)  # what an import prints is no reply
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or each fork looks through, and thereby copies, all that the imports have made
    running: set[int] = set()
    while True:
        for pid in [*running]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                _reply(replies, pid, os.waitstatus_to_exitcode(status))
        if not requests.ready(0.01 if running else None):
            continue
        if (line := requests.next()) is None:
            return None
        if not (pid := os.fork()):
            os.close(replies)
            requests.close()
            return json.loads(line)
        running.add(pid)
        _reply(replies, pid)


def _reply(replies: int, pid: int, code: int | None = None) -> None:
    os.write(replies, json.dumps([pid, code]).encode() + b"\n")


def _run(command: list[str], env: dict[str, str], cwd: str, output: str) -> None:
    """Becomes the command. Returning, or raising, ends this interpreter as it would end a new one."""
    for descriptor, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, os.open(output, os.O_WRONLY))):
        os.dup2(file, descriptor)
        os.close(file)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[0], sys.orig_argv, sys.argv = cwd, command, command[2:]
    runpy.run_module(command[2], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    try:
        request = _serve()
    except KeyboardInterrupt:  # it came to all processes of the terminal
        request = None
    if request is not None:
        _run(*request)
