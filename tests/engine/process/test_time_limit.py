"""The run's own clock asks for a stop in time."""

from __future__ import annotations

import threading
import time

import pytest

from engine.process.signals import StopRequest
from engine.process.time_limit import LEAST_MARGIN, Walltime


def wait_for_stop(stop: StopRequest, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not stop and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(stop)


def test_a_stop_is_asked_for_before_the_end_and_not_long_before() -> None:
    near, far = StopRequest(), StopRequest()
    clocks = [Walltime(time.time() + LEAST_MARGIN + 1, near), Walltime(time.time() + LEAST_MARGIN + 1000, far)]
    assert wait_for_stop(near, 10)
    assert not far
    for clock in clocks:
        clock.close()


def test_a_long_step_and_save_are_reckoned_with() -> None:
    stop = StopRequest()
    clock = Walltime(time.time() + LEAST_MARGIN + 1000, stop)
    clock.saved(300)
    clock.saved(500)
    clock.saved(1)
    assert clock.margin == LEAST_MARGIN + 1000
    assert wait_for_stop(stop, 10)


def test_only_what_is_a_step_counts_as_one() -> None:
    clock = Walltime(None, StopRequest())
    clock.stepped()
    time.sleep(0.2)
    clock.paused()
    clock.stepped()
    assert clock.margin < LEAST_MARGIN + 0.1
    time.sleep(0.2)
    clock.stepped()
    assert clock.margin >= LEAST_MARGIN + 0.2


def test_an_end_that_is_near_at_the_start_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Walltime(time.time() + 1000, StopRequest()).close()
    assert not caplog.text
    Walltime(time.time() + 50, StopRequest()).close()
    assert "ask for more --time" in caplog.text


def test_without_an_end_there_is_no_thread() -> None:
    before = set(threading.enumerate())
    Walltime(None, StopRequest())
    assert not set(threading.enumerate()) - before
