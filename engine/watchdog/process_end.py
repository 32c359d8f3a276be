"""The end of a process that cannot wait for its main thread, and what its threads were doing."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

from engine.log import FILE_ONLY
from engine.run_folder.failure import Failure

log = logging.getLogger(__name__)
REPORT_SECONDS = 8.0  # longest time for records and logs before the process ends without


def end_process(failure: Failure, report: Callable[[Failure], None]) -> None:
    """Calls ``report``, kills this process's children and ends it, from any thread and within a fixed time."""

    def end() -> None:
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(failure.exit_code)

    threading.Timer(REPORT_SECONDS, end).start()
    try:
        report(failure)
    except BaseException:
        log.exception("the failure report of this rank failed")
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a closed pipe, or none at all: there is nobody left to tell
            stream.flush()
    end()


def log_stacks() -> str:
    """Writes the stack of every Python thread, the main one first, to this rank's log file and returns them."""
    names, main = {thread.ident: thread.name for thread in threading.enumerate()}, threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] != main)
    stacks = (f"thread {names.get(i, i)}:\n{''.join(traceback.format_stack(frame))}" for i, frame in frames)
    text = "\n".join(stacks)[:20_000]
    log.error("a rank hangs; what this one is doing:\n%s", text, extra=FILE_ONLY)
    return text
