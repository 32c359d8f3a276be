"""What every thread of this process is doing, as text."""

from __future__ import annotations

import logging
import sys
import threading
import traceback

from engine.log import FILE_ONLY

log = logging.getLogger(__name__)

_LONGEST = 100_000
"""Characters; a process with very many threads shall not fill logs and buffers."""


def all_stacks() -> str:
    """The stack of every Python thread, the main one first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    parts = [
        f"thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}"
        for number, frame in sorted(sys._current_frames().items(), key=lambda item: item[0] != main)
    ]
    return "\n".join(parts)[:_LONGEST]


def log_stacks() -> str:
    """Writes :func:`all_stacks` to this rank's log file and returns it."""
    text = all_stacks()
    log.error("a rank hangs; what this one is doing:\n%s", text, extra=FILE_ONLY)
    return text
