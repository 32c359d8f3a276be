"""A process ends in time, whatever its report does."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.distributed import ROOT

PROGRAM = """
import multiprocessing, sys, threading, time
import engine.watchdog.process_end
from engine.run_folder.failure import Failure
engine.watchdog.process_end.REPORT_SECONDS = 0.5
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
child.start()

def report(failure):
    print("report:", failure.reason, child.pid, flush=True)
    if sys.argv[1] == "hang":
        time.sleep(600)
    if sys.argv[1] == "raise":
        raise OSError("disk full")

failure = Failure(1, "n1", 12, "because", exit_code=5)
threading.Thread(target=engine.watchdog.process_end.end_process, args=(failure, report)).start()
time.sleep(600)  # a main thread that waits for ever
"""


@pytest.mark.parametrize("how", ["well", "raise", "hang"])
def test_a_process_ends_with_its_children(how: str) -> None:
    begin = time.monotonic()
    command = [sys.executable, "-c", PROGRAM, how]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert time.monotonic() - begin < 15  # its output is at its end only when the child has ended too
    assert ended.returncode == 5
    assert ended.stdout.startswith("report: because ")
    assert ("disk full" in ended.stderr) == (how == "raise")
