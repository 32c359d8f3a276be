"""status.json: what it says, when it is written, when a run counts as lost."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.run_folder.status import LOST_AFTER, Status, mark_failed, read_status

RUN = """
import sys, time
from pathlib import Path
from engine.run_folder.status import Status
status = Status(Path(sys.argv[1]), interval=0.05)
status.update(step=3)
print("up", flush=True)
time.sleep(1000)  # a long evaluation
"""


def read(path: Path) -> dict:
    status = read_status(path)
    assert status is not None
    return status


def test_changes_of_state_and_best_are_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    status = Status(path, interval=1000)
    assert read(path) | {"updated": 0} == {"state": "running", "epoch": 0.0, "step": 0, "best": {}, "updated": 0}
    status.update(step=10, epoch=0.5)
    assert read(path)["step"] == 0, "positions can wait for the next beat"
    status.update(best={"step": 10, "top1": 0.5})
    assert (read(path)["step"], read(path)["best"]) == (10, {"step": 10, "top1": 0.5})
    status.update(step=11, epoch=0.0)
    status.close("finished")
    final = read(path)
    assert (final["state"], final["step"], final["epoch"]) == ("finished", 11, 0.0)
    assert abs(final["updated"] - time.time()) < 100


def test_a_running_process_updates_by_itself_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    process = subprocess.Popen([sys.executable, "-c", RUN, os.fspath(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    stamps = set()
    while len(stamps) < 4 or read(path)["step"] != 3:
        stamps.add(read(path)["updated"])
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = json.loads(path.read_text())
    assert last["state"] == "running"
    path.write_text(json.dumps({**last, "updated": time.time() - LOST_AFTER - 1}))
    assert read(path)["state"] == "lost"
    path.write_text(json.dumps({**last, "updated": time.time() - LOST_AFTER + 60}))
    assert read(path)["state"] == "running"


def test_only_running_runs_get_lost(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    for state in ("queued", "finished", "interrupted", "failed"):
        path.write_text(json.dumps({"state": state, "updated": 0}))
        assert read(path)["state"] == state


def test_a_resumed_run_keeps_what_the_status_said(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    first = Status(path)
    first.update(step=7, epoch=1.5, best={"top1": 0.9})
    first.close("interrupted")
    assert read(path)["state"] == "interrupted"
    Status(path).close("finished")
    assert read(path) | {"updated": 0} == {
        "state": "finished",
        "epoch": 1.5,
        "step": 7,
        "best": {"top1": 0.9},
        "updated": 0,
    }


def test_a_disk_that_cannot_be_written_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    status = Status(folder / "status.json", interval=1000)
    (folder / "status.json").unlink()
    folder.rmdir()
    with caplog.at_level(logging.WARNING):
        status.update(state="interrupted")
        status.update(state="running")
    assert [record.getMessage().partition(" cannot")[0] for record in caplog.records] == [f"{folder}/status.json"]
    folder.mkdir()
    status.close("finished")
    assert read(folder / "status.json")["state"] == "finished"


def test_a_run_that_is_ended_at_once_says_so_also_in_the_midst_of_a_write(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    status = Status(path, interval=0.01)
    status.update(step=5)
    with status._writing:  # as where a signal has interrupted the main thread
        status.end_at_once("interrupted")
    assert (read(path)["state"], read(path)["step"]) == ("interrupted", 5)


def test_a_run_that_has_ended_keeps_its_state(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    status = Status(path)
    status.close("finished")
    status.end_at_once("interrupted")
    assert read(path)["state"] == "finished"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"state": "running"}', '{"state": "running", "updated": "x"}']
)
def test_what_is_no_status_reads_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "status.json"
    assert read_status(path) is None
    path.write_text(content)
    assert read_status(path) is None


@pytest.mark.parametrize("step, expected", [(9, (9, 2.25)), (3, (4, 1.0))])
def test_a_run_that_failed_has_got_at_least_as_far_as_its_failure(
    tmp_path: Path, step: int, expected: tuple[int, float]
) -> None:
    path = tmp_path / "status.json"
    Status(path).update(state="running", epoch=1.0, step=4)
    mark_failed(path, step)
    status = read(path)
    assert (status["state"], status["step"], status["epoch"]) == ("failed", *expected)
