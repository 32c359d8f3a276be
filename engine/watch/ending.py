"""The end of a process that cannot wait for its main thread."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable

from engine.failure import Failure

log = logging.getLogger(__name__)

LAST_WORDS_SECONDS = 8.0
"""Longest time for records and logs before the process ends without."""

Exit = Callable[[int], object]


def end_process(failure: Failure, last_words: Callable[[Failure], None], exit_process: Exit = os._exit) -> None:
    """Calls ``last_words``, kills this process's children and ends it, from any thread and within a fixed time."""
    guard = end_later(failure.exit_code, LAST_WORDS_SECONDS, exit_process)
    try:
        last_words(failure)
    except BaseException:
        log.exception("the last words of this rank failed")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # a closed pipe, or none at all: there is nobody left to tell
            continue
    guard.cancel()
    _end(failure.exit_code, exit_process)


def end_later(exit_code: int, seconds: float, exit_process: Exit = os._exit) -> threading.Timer:
    """Ends this process in ``seconds`` unless the timer that is returned is cancelled."""
    timer = threading.Timer(seconds, _end, [exit_code, exit_process])
    timer.name, timer.daemon = "ending", True
    timer.start()
    return timer


def _end(exit_code: int, exit_process: Exit) -> None:
    for child in multiprocessing.active_children():
        child.kill()
    exit_process(exit_code)
