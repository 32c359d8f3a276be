"""What figures of a rehearsal mean, and the search for the largest micro-batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import UserError
from tools.check.find_batch import search
from tools.check.judge import judge_memory, judge_time, memory_limit, run_seconds, shown_seconds
from tools.check.machine import node_bytes, parse_bytes
from tools.check.pictures import by_class
from tools.submit.resources import Resources

FOUND = {
    "steps": {"total": 101, "per_epoch": 50, "evaluations": 2},
    "step_seconds": 2.0,
    "start_seconds": 10.0,
    "first_step_seconds": 5.0,
    "evaluation_seconds": 40.0,
    "save_seconds": 1.0,
    "memory_bytes": 30e9,
}


def test_the_time_of_a_run_is_that_of_its_parts() -> None:
    seconds = run_seconds(FOUND, devices=4)
    assert seconds == {"epoch": 100.0, "evaluation": 10.0, "total": 10 + 5 + 200 + 2 * (10 + 2)}
    assert run_seconds({**FOUND, "evaluation_seconds": None}, 1)["evaluation"] is None


def test_a_run_that_is_longer_than_a_job_goes_on_in_others() -> None:
    seconds = run_seconds(FOUND, 1)
    assert not judge_time(FOUND, seconds, 400.0, 1).warnings
    assert judge_time(FOUND, seconds, 235.0, 1).warnings[0].endswith("it goes on in 3 jobs")
    assert judge_time(FOUND, seconds, 130.0, 1).errors
    assert "exchange of gradients is not measured" in judge_time(FOUND, seconds, None, 8).lines[0]


def test_memory_is_compared_with_that_of_the_gpu_or_the_job() -> None:
    assert memory_limit({"gpu_bytes": 80e9}, Resources()) == 80e9
    assert memory_limit({}, Resources(gpus_per_node=0, tasks_per_node=2, mem="64G")) == 32 * 2**30
    assert judge_memory(FOUND, 80e9, 8).lines[0].startswith("30.0 GB of 80.0 GB at most, at a micro-batch of 8")
    assert judge_memory(FOUND, 32e9, 8).warnings and judge_memory(FOUND, 29e9, 8).errors


@pytest.mark.parametrize(
    ("text", "count"), [("2000", 2000 * 2**20), ("1.5G", 1.5 * 2**30), ("4k", 4096), ("1TB", 2**40)]
)
def test_memory_is_written_as_for_sbatch(text: str, count: float) -> None:
    assert parse_bytes(text) == count


def test_all_memory_of_a_node_may_be_asked_for() -> None:
    assert memory_limit({}, Resources(gpus_per_node=0, mem="0")) == memory_limit({}, Resources(gpus_per_node=0))


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("0::/slurm/job_7/step_0\n", "sys/fs/cgroup/slurm/job_7/memory.max"),
        ("5:cpuset:/\n4:memory:/slurm/job_7\n", "sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes"),
    ],
)
def test_the_memory_of_a_node_is_what_its_control_groups_and_its_job_leave(
    tmp_path: Path, groups: str, file: str
) -> None:
    for name, text in (("proc/self/cgroup", groups), (file, f"{2**28}\n")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert node_bytes({}, tmp_path) == 2**28
    assert node_bytes({"SLURM_MEM_PER_NODE": "64"}, tmp_path) == 64 * 2**20
    assert node_bytes({}, tmp_path / "elsewhere") > 2**28


@pytest.mark.parametrize("text", ["", "G", "-1G", "64 apples"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--mem: "):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.10499, "0.105 s"), (59.9, "59.9 s"), (192, "3 min 12 s"), (27600, "7 h 40 min")]
)
def test_seconds_are_read_by_people(seconds: float, text: str) -> None:
    assert shown_seconds(seconds) == text


def test_of_many_classes_the_largest_and_the_smallest_are_told() -> None:
    counts = {f"c{number}": number for number in range(30)}
    assert by_class("val", counts) == "val by class: c29 29, c28 28, c27 27, c26 26, …, c3 3, c2 2, c1 1, c0 0"
    assert by_class("val", {"b": 1, "a": 2}) == "val by class: b 1, a 2"


# -- the largest micro-batch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [1, 8, 64, 300])
@pytest.mark.parametrize(("unit", "most"), [(1, 5000), (2, 5000), (1, 90)])
def test_a_device_that_says_no_is_asked_until_the_size_is_known(start: int, unit: int, most: int) -> None:
    asked: list[int] = []

    def peak(size: int) -> float | None:
        asked.append(size)
        return 1.0 * size if size <= 130 else None

    found = search(peak, start * unit, unit, most, None)
    expected = min(130, most)
    assert found.size % unit == 0 and expected - max(unit, 9) <= found.size <= expected and found.tried
    assert found.too_large is None if most < 130 else found.size < found.too_large <= 146
    assert len(asked) <= 14


def test_what_would_not_fit_a_cpu_is_never_tried() -> None:
    asked: list[int] = []

    def peak(size: int) -> float:
        asked.append(size)
        return 100.0 + 10.0 * size

    found = search(peak, 4, 1, 10_000, limit=1000.0)
    assert found.size == 90 and found.bytes == 1000.0 and found.too_large == 91 and not found.tried
    assert max(asked) <= 90


def test_where_nothing_fits_that_is_found() -> None:
    assert search(lambda size: None, 64, 2, 1000, None).size == 0
    assert search(lambda size: 5.0, 64, 2, 1000, limit=1.0).size == 0
