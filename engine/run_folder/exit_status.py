"""How a process ended, and what that usually means: what a launch script that waited for it adds to FAILED.json."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path

from engine.files import read_json, warning_of_a_bad_disk, write_json
from engine.run_folder.failure import Failure, put
from engine.run_folder.status import read_status

_SIGNALS = {
    signal.SIGKILL: "usually out of memory, scancel, or the end of a job step that another rank failed",
    signal.SIGTERM: "asked to end: a time limit, preemption, scancel, or torchrun after another rank failed",
    signal.SIGSEGV: "a crash in compiled code: an extension or driver that does not fit, or a broken data file",
    signal.SIGBUS: "usually no room left in /dev/shm, which data workers share, or a file cut short while mapped",
    signal.SIGABRT: "compiled code gave up: NCCL's timeout, an assertion in CUDA, or corrupted memory",
    signal.SIGILL: "a program built for another processor",
    signal.SIGFPE: "an arithmetic fault in compiled code",
    signal.SIGINT: "Ctrl-C",
    signal.SIGHUP: "the terminal or session was closed",
}
_CODES = {
    0: "finished",
    1: "failed; see FAILED.json and logs/",
    2: "the configuration, data or arguments are wrong",
    75: "interrupted after saving, to be continued",
}


def describe_wait_status(status: int) -> str:
    """Says what the end of a process means.

    Args:
        status: an exit code, the negative number of a signal (Python), or 128 and that number (shells).
    """
    ended_by = {known.value: known for known in signal.Signals}.get(-status if status < 0 else status - 128)
    if ended_by is not None:
        return f"{ended_by.name}: {_SIGNALS[ended_by]}" if ended_by in _SIGNALS else ended_by.name
    return f"exit code {status}: {_CODES[status]}" if status in _CODES else f"exit code {status}"


def add_wait_status(path: Path, status: int, since: float = 0.0) -> None:
    """Adds how a process ended to FAILED.json, or writes one with it; for the script that launched and waited.

    Args:
        since: when the process was started, in seconds since 1970: an older file is about another start.
    """
    meaning, content = describe_wait_status(status), read_json(path)
    if content is not None and content.get("time", 0.0) >= since:
        with warning_of_a_bad_disk(path):
            write_json(path, {**content, "wait_status": meaning})
        return
    state = read_status(path.with_name("status.json")) or {}
    step = int(state.get("step", 0))
    failure = Failure(None, "", step, f"a process ended, last heard of at step {step}: {meaning}", step_known=False)
    put(path, {**asdict(failure), "wait_status": meaning})
