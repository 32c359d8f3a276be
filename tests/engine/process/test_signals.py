"""Stop signals, sent to real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.process.signals import STOP_SIGNALS, StopRequest
from tests.distributed import ROOT, clean_environment

PROGRAM = """
import sys
from engine.process.signals import StopRequest
stop = StopRequest().install()
assert not stop
print("ready", "torch" in sys.modules, flush=True)
for line in sys.stdin:
    print(bool(stop), stop.signal.name if stop.signal else None, flush=True)
"""


@contextmanager
def program(**environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that handles stop signals and answers each line it is given with what it knows of them."""
    command = [sys.executable, "-c", PROGRAM]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=ROOT, env=clean_environment(environment), **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline() == "ready False\n"  # without torch, as importing it takes seconds
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_is_remembered_and_the_process_lives(number: signal.Signals) -> None:
    with program() as process:
        assert ask(process) == "False None"
        process.send_signal(number)
        assert ask(process) == f"True {number.name}"
        if number != signal.SIGINT:
            process.send_signal(number)
            assert ask(process) == f"True {number.name}"
        assert process.poll() is None


@pytest.mark.parametrize("answers", [True, False])
def test_the_first_ctrl_c_is_answered_at_once_where_that_is_asked_for(
    answers: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    stop = StopRequest(answers)
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        stop.install()
        signal.raise_signal(signal.SIGTERM)
        assert not capfd.readouterr().err
        signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ("Ctrl-C again ends at once" in capfd.readouterr().err) is answers


def test_the_first_signal_counts() -> None:
    with program() as process:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
            assert ask(process) == "True SIGUSR1"


def test_a_second_interrupt_ends_the_process_at_once() -> None:
    with program() as process:
        process.send_signal(signal.SIGINT)
        assert ask(process) == "True SIGINT"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=600) == 130


def test_a_second_interrupt_leaves_what_it_was_asked_to_whatever_that_raises() -> None:
    program = PROGRAM.replace("assert not stop", "stop.before_the_end = lambda: print('left', flush=True) or 1 / 0")
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, text=True, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert ask(process) == "True SIGINT"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=600) == 130
        assert process.stdout.read() == "left\n"


def test_under_torchrun_one_ctrl_c_may_come_twice() -> None:
    with program(TORCHELASTIC_RUN_ID="none") as process:
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            assert ask(process) == "True SIGINT"
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=600) == 130


def test_another_ranks_signal_is_heard_unless_there_was_one() -> None:
    stop = StopRequest()
    stop.hear("SIGUSR1")
    stop.hear("SIGTERM")
    assert stop.signal == signal.SIGUSR1


def test_no_signal_is_forgotten_that_a_scheduler_sends() -> None:
    assert set(STOP_SIGNALS) == {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}
    assert StopRequest().signal is None
