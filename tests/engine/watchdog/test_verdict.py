"""Who is late, and how it is said."""

from __future__ import annotations

import time

import pytest

from engine.distributed.heartbeat import Place
from engine.watchdog.verdict import SILENT_BEATS, AwakeClock, Limits, Member, Pace, hangs, late_ranks, vanished

NOW = 1000.0
TIMEOUT = 20.0
WHY = "no progress for 20 s"


def member(
    rank: int,
    step: int = 12,
    moves: int = 2,
    phase: str = "backward",
    idle: float = 30.0,
    silent: float = 0.1,
    stacks: str = "",
):
    return Member(rank, f"n{rank}", NOW - silent, Place(step, moves, phase), idle, stacks=stacks)


def said(*members: Member, timeout: float = TIMEOUT) -> str:
    late = late_ranks(members, NOW, timeout)
    return hangs(late, members, NOW, WHY).reason if late else ""


def test_who_is_furthest_behind_is_late() -> None:
    late, others = member(1, moves=0, phase="data"), [member(0), member(2)]
    assert late_ranks([*others, late], NOW, TIMEOUT) == [late]
    expected = "rank 1 on n1 hangs at step 12 in data; the others wait in backward (no progress for 20 s)"
    assert said(*others, late) == expected


def test_a_step_behind_is_behind_whatever_the_phase() -> None:
    text = said(
        member(0, step=13, moves=0, phase="data"), member(1, moves=4, phase="save"), member(2, step=13, moves=2)
    )
    assert text.startswith("rank 1 on n1 hangs at step 12 in save; the others wait in data of step 13 and backward of ")


def test_accumulation_repeats_phases_and_is_not_mistaken() -> None:
    assert said(member(0, moves=5), member(1, moves=2)).startswith("rank 1 on n1 hangs at step 12 in backward; rank 0 ")


def test_nobody_is_late_while_anybody_moves() -> None:
    assert said(member(0), member(1, moves=0, idle=19.0)) == ""


def test_time_since_the_last_word_counts() -> None:
    assert said(member(0), member(1, moves=0, idle=19.0, silent=1.2)) != ""


def test_all_at_one_place() -> None:
    members = [member(0, stacks="a"), member(1, stacks="b")]
    failure = hangs(members, members, NOW, WHY)
    assert failure.reason == "all ranks hang at step 12 in backward (no progress for 20 s)"
    assert failure.rank is None
    assert failure.traceback == "rank 0 on n0:\na\nrank 1 on n1:\nb"


def test_a_single_rank_waits_for_nobody() -> None:
    assert said(member(0, phase="data")) == "rank 0 on n0 hangs at step 12 in data (no progress for 20 s)"


def test_many_late_ranks_are_counted() -> None:
    late = [member(rank, moves=0, phase="data") for rank in range(1, 8)]
    text = said(member(0), *late)
    assert text.startswith(
        "rank 1 on n1, rank 2 on n2, rank 3 on n3, rank 4 on n4 and 3 more hang at step 12 in data; "
    )


@pytest.mark.parametrize(
    "slow, limits, expected",
    [
        ([False, False], (20.0, 90.0), (20.0, "no progress for 20 s, distributed.timeout_seconds")),
        ([False, True], (20.0, 90.0), (90.0, "no progress for 90 s, distributed.start_timeout_seconds")),
        ([True, True], (20.0, 10.0), (20.0, "no progress for 20 s, distributed.timeout_seconds")),
    ],
)
def test_the_longer_limit_holds_while_any_rank_is_slow(
    slow: list[bool], limits: tuple[float, float], expected: tuple[float, str]
) -> None:
    members = [Member(rank, slow=each) for rank, each in enumerate(slow)]
    assert Limits(*limits).of(members) == expected


@pytest.mark.parametrize(
    "standing, longest, lost", [(9.0, 0.0, False), (11.0, 0.0, True), (50.0, 20.0, False), (61.0, 20.0, True)]
)
def test_who_is_cut_off_is_lost_if_the_others_wait_longer_than_they_ever_did(
    standing: float, longest: float, lost: bool
) -> None:
    pace = Pace()
    for seconds in (0.0, longest, 0.0, standing):
        pace.stands(seconds, slow=False)
    assert pace.waits() == lost


def test_what_a_slow_phase_took_is_no_measure_of_how_long_the_others_may_wait() -> None:
    pace = Pace()
    for seconds, slow in ((600.0, True), (0.0, False), (11.0, False)):
        pace.stands(seconds, slow)
    assert pace.waits()


def test_silence_is_worse_than_being_behind() -> None:
    text = said(member(0, moves=0, phase="data"), member(1, silent=TIMEOUT + 1))
    assert text.startswith("rank 1 on n1 is silent since step 12 in backward, stopped or in code that holds Python's ")


def test_a_silent_rank_is_late_though_others_move() -> None:
    assert said(member(0, idle=0.0), member(1, idle=0.0, silent=TIMEOUT + 1)) != ""
    assert said(member(0, idle=0.0), member(1, idle=0.0, silent=TIMEOUT - 1)) == ""


def test_a_rank_that_is_not_heard_is_given_the_time_to_be_clearly_silent() -> None:
    assert said(member(0), member(1, silent=SILENT_BEATS - 1), timeout=2.0) == ""
    assert "is silent" in said(member(0), member(1, silent=SILENT_BEATS + 1), timeout=2.0)


def test_the_late_ranks_stacks_come_first() -> None:
    late, others = member(3, moves=0, stacks="three"), [member(0, stacks="zero"), member(1, stacks="one")]
    failure = hangs([late], [*others, late], NOW, WHY)
    assert failure.traceback.splitlines() == ["rank 3 on n3:", "three", "rank 0 on n0:", "zero", "rank 1 on n1:", "one"]


@pytest.mark.parametrize(
    "own, expected, step",
    [(Place(12), " (backward)", 12), (Place(24), ", while the others were at step 24", 24)],
    ids=str,
)
def test_a_vanished_rank_was_where_it_said_or_where_the_survivor_waits(own: Place, expected: str, step: int) -> None:
    failure = vanished(member(1), own)
    assert failure.reason.startswith(
        f"rank 1 on n1 vanished, last heard of at step 12{expected}: killed, out of memory, crashed, or its node"
    )
    assert (failure.rank, failure.host, failure.step, failure.exit_code) == (1, "n1", step, 1)


def test_time_in_which_the_process_did_not_run_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    real = 50.0
    monkeypatch.setattr(time, "monotonic", lambda: real)
    clock = AwakeClock()
    real += 0.5
    assert clock() == 0.5
    real += 3600.0  # suspended by the scheduler
    assert clock() == 1.5
