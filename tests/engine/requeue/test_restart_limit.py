"""A job that is restarted again and again and gets nowhere is stopped; one that gets on, or a person starts, is not."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.distributed.heartbeat import Place
from engine.requeue.restart_limit import restart_limit_reason
from engine.run_folder.environment import record_start
from engine.run_folder.failure import Failure, write_failure
from engine.run_folder.paths import RunDir
from engine.watchdog.verdict import Member, hangs

JOB = "812"


def environment(restarts: int, job: str = JOB) -> dict[str, str]:
    return {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restarts)}


def start(step: int, restarts: int, job: str = JOB) -> dict[str, Any]:
    """A start's entry in environment.json."""
    slurm = {"job_id": job} | ({"restart_count": str(restarts)} if restarts else {})
    return {"started": 1000.0 + restarts, "step": step, "slurm": slurm}


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    return RunDir.claim(tmp_path)


@pytest.mark.parametrize(
    ("begun", "restarts", "step", "expected"),
    [
        ([(0, 0), (0, 1)], 2, 0, None),
        ([(0, 0), (0, 1), (0, 2)], 3, 0, "3 starts in a row have saved no new step"),
        ([(0, 0), (0, 1), (0, 2)], 3, 40, None),  # the third one did
        ([(0, 0), (40, 1), (40, 2)], 3, 40, None),
        ([(0, 0), (40, 1), (40, 2), (40, 3)], 4, 40, "3 starts in a row have saved no new step"),
        ([(0, 0), (40, 1)], 4, 40, "3 starts in a row have saved no new step"),  # two ended before they were recorded
        ([(0, 0)], 4, 40, "3 starts in a row have saved no new step"),
        ([], 2, 0, None),
        ([], 3, 0, "3 starts in a row have saved no new step"),
    ],
)
def test_starts_without_a_new_step(
    folder: RunDir, begun: list[tuple[int, int]], restarts: int, step: int, expected: str | None
) -> None:
    for begun_at, number in begun:
        record_start(folder.environment, start(begun_at, number))
    assert restart_limit_reason(folder, step, environment(restarts)) == expected
    assert restart_limit_reason(folder, step, environment(0)) is None, "a person made this start"
    assert restart_limit_reason(folder, step, {}) is None, "outside Slurm"


def test_starts_of_an_earlier_job_do_not_count(folder: RunDir) -> None:
    for number in range(3):
        record_start(folder.environment, start(0, number, job="700"))
    assert restart_limit_reason(folder, 0, environment(1)) is None


def test_two_crashes_at_one_step(folder: RunDir) -> None:
    record_start(folder.environment, start(0, 0))
    write_failure(folder.failed, Failure(1, "n1", 50, "rank 1 vanished", start="a"))
    assert restart_limit_reason(folder, 40, environment(1)) is None
    write_failure(folder.failed, Failure(1, "n1", 60, "rank 1 vanished", start="b"))
    assert restart_limit_reason(folder, 40, environment(1)) is None
    write_failure(folder.failed, Failure(0, "n0", 50, "rank 0 failed", start="c", time=time.time() + 1))
    reason = "2 starts have failed at step 50, the last one: rank 0 failed"
    assert restart_limit_reason(folder, 40, environment(1)) == reason
    assert restart_limit_reason(folder, 51, environment(1)) is None, "that step was passed"


def test_a_crash_that_is_told_a_step_early_is_one_at_the_same_step(folder: RunDir) -> None:
    record_start(folder.environment, start(0, 0))
    write_failure(folder.failed, Failure(1, "n1", 50, "rank 1 failed", start="a"))
    write_failure(folder.failed, Failure(1, "n1", 49, "rank 1 vanished", start="b", time=time.time() + 1))
    assert (restart_limit_reason(folder, 40, environment(1)) or "").startswith("2 starts have failed at step 49")


def test_what_was_last_heard_of_at_one_step_need_not_have_ended_there(folder: RunDir) -> None:
    record_start(folder.environment, start(0, 0))
    for number in range(2):  # killed at 57 and at 98: records are written every 50 steps
        failure = Failure(None, "n1", 50, "ended without a word", start=str(number), step_known=False)
        write_failure(folder.failed, replace(failure, time=time.time() + number))
    assert restart_limit_reason(folder, 40, environment(1)) is None
    write_failure(folder.failed, Failure(1, "n1", 50, "rank 1 failed", start="c", time=time.time() + 3))
    assert restart_limit_reason(folder, 40, environment(2)) is None, (
        "that start is the only one known to have failed there"
    )


def test_hangs_count_as_crashes(folder: RunDir) -> None:
    record_start(folder.environment, start(0, 0))
    for number, rank in enumerate((1, 3)):
        late = Member(rank, f"n{rank}", place=Place(50, 2, "data"))
        others = [Member(0, "n0", place=Place(50, 3, "backward"))]
        failure = hangs([late], [*others, late], 0.0, "no progress for 600 s")
        write_failure(folder.failed, replace(failure, start=str(number), time=time.time() + number))
    reason = restart_limit_reason(folder, 40, environment(1))
    assert reason is not None and reason.startswith("2 starts have failed at step 50, the last one: rank 3 on n3 hangs")


def test_crashes_before_the_job_do_not_count(folder: RunDir) -> None:
    for number in range(2):
        write_failure(folder.failed, Failure(1, "n1", 50, "vanished", start=str(number), time=900.0 + number))
    record_start(folder.environment, start(40, 0))
    assert restart_limit_reason(folder, 40, environment(1)) is None
