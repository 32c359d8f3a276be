"""Any number of experiments as rows: right numbers, whatever has become of other folders."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.files import write_json
from engine.run_folder import read_experiments
from engine.run_folder.as_found import MOST_BYTES
from engine.run_folder.experiments import read_runs
from engine.run_folder.failure import Failure, write_failure
from engine.run_folder.metrics import MOST_POINTS, lines_of, read_metrics
from engine.run_folder.paths import RunDir
from tests.tools.compare.folders import BROKEN, write_experiment, write_root


def only(folder: RunDir) -> dict[str, Any]:
    (row,) = read_experiments(folder.path)
    return row


def test_a_row_says_what_the_files_say(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 7, name="a name", seed=3, top1=0.875, restarts=2)
    row, val = only(folder), read_metrics(folder.metrics, "val")
    assert (row["experiment"], row["name"], row["state"], row["problem"]) == (
        "experiment_0007",
        "a name",
        "finished",
        "",
    )
    assert (row["task"], row["epoch"], row["step"], row["restarts"]) == ("classification", 4.0, 40, 2)
    assert (row["metric"], row["best.top1"], row["best.epoch"], row["best.step"]) == ("top1", 0.875, 3.0, 30)
    assert (row["best.f1_macro"], row["best.loss"]) == (val[2]["f1_macro"], val[2]["loss"])
    assert (row["last.top1"], row["last.epoch"]) == (val[3]["top1"], 4.0)
    assert row["train.loss"] == read_metrics(folder.metrics, "train")[-1]["loss"]
    assert (row["parameters"], row["flops"]) == (28_288_354, 8_970_000_000)
    assert row["images_per_second"] == 101.0, "the median"
    assert row["memory_gb"] == 1.504, "the most"
    assert (row["optimizer.lr"], row["experiment.seed"], row["training.steps"]) == (0.001, 3, None)
    assert (row["model.depths"], row["training.ema"]) == ("[2, 2, 6, 2]", None)


def test_wall_time_is_what_the_starts_were_at_work(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 1)
    starts = [{"started": 1000.0, "ended": 1060.0}, {"started": 5000.0}, {"started": 9000.0, "ended": 9030.0}]
    write_json(folder.environment, {**starts[0], "restarts": starts[1:]})
    folder.metrics.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    (run,) = read_runs([folder.path])
    assert run.row()["hours"] == pytest.approx((60 + 40 + 30) / 3600), "of a killed start to its last sign of life"
    assert run.lines["train.loss"].hours == pytest.approx([30 / 3600, 100 / 3600, 120 / 3600])


RECORDS = [
    {"step": step, "epoch": step / 10, "split": "train", "time": time, "loss": 1.0}
    for step, time in ((10, 1030.0), (20, 5040.0), (30, 9020.0))
]


def test_the_best_is_the_first_of_the_least_where_less_is_better(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 1)
    values = (0.5, None, 0.25, 0.25, 0.5)
    records = [{"step": s, "epoch": s, "split": "val", "time": 1.0, "loss": v} for s, v in enumerate(values, 1)]
    outside = {"step": 9, "epoch": 9, "split": "val", "loss": 0.0, "source": "evaluate", "checkpoint": "best.pt"}
    folder.metrics.write_text("".join(json.dumps(record) + "\n" for record in [*records, outside]))
    write_json(folder.status, {"state": "finished", "best": {"step": 3, "epoch": 3.0, "loss": 0.25}, "updated": 1.0})
    folder.environment.unlink()
    row = only(folder)
    assert (row["metric"], row["best.step"], row["best.loss"], row["last.step"]) == ("loss", 3, 0.25, 5)


def test_an_evaluation_of_test_has_columns_of_its_own(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 1)
    record = {"step": 30, "epoch": 3.0, "split": "test", "top1": 0.75, "source": "evaluate", "checkpoint": "best.pt"}
    with folder.metrics.open("a") as file:
        file.write(json.dumps(record) + "\n")
    row = only(folder)
    assert (row["test.top1"], row["test.checkpoint"], row["best.top1"]) == (0.75, "best.pt", 0.9)


def test_two_damaged_lines_are_not_taken_for_one_record(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 1)
    folder.metrics.write_text('{"step": 1, "split": "train"\n"loss": 1}\n' + folder.metrics.read_text())
    assert only(folder)["problem"] == "metrics.jsonl: 2 of 14 lines are damaged"


@pytest.mark.parametrize("kind", BROKEN)
def test_whatever_has_become_of_a_folder_it_is_listed_and_marked(tmp_path: Path, kind: str) -> None:
    spoil, state, problem = BROKEN[kind]
    good, bad = (write_experiment(tmp_path, number) for number in (1, 2))
    spoil(bad)
    rows = read_experiments(tmp_path)
    assert [row["experiment"] for row in rows] == ["experiment_0001", "experiment_0002"]
    assert rows[0] == only(good) and rows[0]["state"] == "finished"
    assert rows[1]["state"] == state
    assert problem in rows[1]["problem"] and bool(problem) == bool(rows[1]["problem"])


def test_what_waits_lacks_nothing_and_keeps_what_it_has(tmp_path: Path) -> None:
    new, again = (write_experiment(tmp_path, number, state="queued") for number in (1, 2))
    new.metrics.unlink()
    new.environment.unlink()
    first, second = read_experiments(tmp_path)
    assert (first["state"], first["problem"], second["state"], second["best.top1"]) == ("queued", "", "queued", 0.9)
    assert again.metrics.exists()


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 1, state="failed")
    write_failure(folder.failed, Failure(0, "n0", 7, "out of memory"))
    assert only(folder)["problem"] == "out of memory"


def test_foreign_folders_come_last_and_hidden_ones_and_files_are_left_out(tmp_path: Path) -> None:
    write_root(tmp_path, 2, broken=False)
    write_experiment(tmp_path, 3).path.rename(tmp_path / "renamed")
    states = {row["experiment"]: row["state"] for row in read_experiments(tmp_path)}
    assert states == {
        "experiment_0001": "finished",
        "experiment_0002": "finished",
        "renamed": "finished",
        "notes": "foreign",
    }
    assert list(states)[-1] == "notes"


def test_several_places_are_read_once_each(tmp_path: Path) -> None:
    one, two = (write_experiment(tmp_path / place, 1).path for place in "ab")
    assert len(read_experiments(tmp_path / "a", one, str(two), tmp_path / "b")) == 2


@pytest.mark.parametrize("place", ["missing", "empty", "file"])
def test_places_without_experiments_are_the_users_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="there is no such folder" if place == "missing" else "no experiments there"):
        read_experiments(tmp_path / place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_what_may_not_be_read_is_marked(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 1)
    folder.metrics.chmod(0)
    assert "metrics.jsonl: cannot be read: Permission denied" in only(folder)["problem"]


def test_of_a_huge_file_the_end_is_read(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 1)
    lines = folder.metrics.read_text()
    with folder.metrics.open("w") as file:
        file.write('{"step": 1, "split": "train", "time": 1, "loss": 5}\n')
        file.truncate(MOST_BYTES + 10)
        file.seek(0, 2)
        file.write("\n" + lines)
    row = only(folder)
    assert "metrics.jsonl: only its end was read" in row["problem"] and row["best.top1"] == 0.9


def test_curves_keep_their_ends_and_are_no_longer_than_asked_for() -> None:
    records = [
        {"step": s, "epoch": s / 7, "split": "train", "time": s, "loss": None if s == 1 else s} for s in range(1, 2001)
    ]
    line = lines_of(records, [])["train.loss"]
    assert len(line.values) <= MOST_POINTS + 1 and (line.steps[0], line.steps[-1]) == (1, 2000)
    assert line.values[0] is None and line.values[-1] == 2000 and set(line.hours) == {None}


def test_nan_that_another_program_has_written_is_no_number(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path, 1)
    folder.metrics.write_text(
        '{"step": 1, "epoch": 1, "split": "val", "time": 1, "top1": NaN}\n' + folder.metrics.read_text()
    )
    assert only(folder)["best.top1"] == 0.9
    assert not any(isinstance(value, float) and math.isnan(value) for value in only(folder).values())


def test_it_is_read_without_torch() -> None:
    script = "import sys, tools.compare.page, tools.compare.__main__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).resolve().parents[3])
