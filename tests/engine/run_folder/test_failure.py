"""FAILED.json: one a failure, the first that is written, and none is lost."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.run_folder.failure import Failure, archive_failure, read_failure, record_silent_end, write_failure
from engine.run_folder.paths import RunDir
from engine.run_folder.status import LOST_AFTER
from tests.distributed import ROOT

FAILURE = Failure(1, "n1", 12, "rank 1 on n1 failed at step 12: ValueError: no", "ValueError", "Traceback", 1, "first")
WRITE = """
import sys, time
from pathlib import Path
from engine.run_folder.failure import Failure, write_failure
path, rank, begin = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
failure = Failure(rank, "n", 20, "x" * 100_000, start="second")
time.sleep(max(0.0, begin - time.time()))
print(write_failure(path, failure))
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    return RunDir.claim(tmp_path)


def names(folder: RunDir) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def test_what_is_written_is_read(folder: RunDir) -> None:
    assert read_failure(folder.failed) is None
    assert write_failure(folder.failed, FAILURE)
    assert read_failure(folder.failed) == FAILURE
    content = json.loads(folder.failed.read_text())
    assert {"rank", "host", "step", "exception", "traceback"} <= content.keys()
    assert names(folder) == ["FAILED.json"]


def test_the_first_of_a_start_stands(folder: RunDir) -> None:
    assert write_failure(folder.failed, FAILURE)
    assert not write_failure(folder.failed, Failure(0, "n0", 12, "survivor", start="first"))
    assert read_failure(folder.failed) == FAILURE
    assert names(folder) == ["FAILED.json"]


def test_a_later_start_that_fails_earlier_keeps_the_file_of_the_first(folder: RunDir) -> None:
    write_failure(folder.failed, FAILURE)
    second = Failure(0, "n0", 11, "another", start="second")
    assert write_failure(folder.failed, second)
    assert read_failure(folder.failed) == second
    assert read_failure(folder.path / "FAILED_1.json") == FAILURE
    assert names(folder) == ["FAILED.json", "FAILED_1.json"]


@pytest.mark.parametrize("before", [False, True], ids=["none before", "an older one"])
def test_of_many_ranks_one_writes(folder: RunDir, before: bool) -> None:
    if before:
        write_failure(folder.failed, FAILURE)
    begin = str(time.time() + 1.5)
    command = [sys.executable, "-c", WRITE, os.fspath(folder.failed)]
    processes = [
        subprocess.Popen([*command, str(rank), begin], stdout=subprocess.PIPE, text=True, cwd=ROOT) for rank in range(6)
    ]
    wrote = [process.communicate()[0].strip() == "True" for process in processes]
    assert wrote.count(True) == 1
    failure = read_failure(folder.failed)
    assert failure is not None and failure.rank == wrote.index(True)
    assert names(folder) == (["FAILED.json", "FAILED_1.json"] if before else ["FAILED.json"])


def test_a_rank_that_died_while_it_wrote_does_not_keep_others_from_it(folder: RunDir) -> None:
    write_failure(folder.failed, FAILURE)
    (folder.path / "FAILED_1.json").write_bytes(folder.failed.read_bytes())  # kept, but not yet replaced
    second = Failure(0, "n0", 11, "another", start="second")
    assert write_failure(folder.failed, second)
    assert read_failure(folder.failed) == second


def test_a_file_system_without_links(folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert write_failure(folder.failed, FAILURE)
    assert not write_failure(folder.failed, FAILURE)
    assert read_failure(folder.failed) == FAILURE
    assert names(folder) == ["FAILED.json"]


def test_a_torn_file_is_replaced(folder: RunDir) -> None:
    folder.failed.write_text('{"rank": 1, "ho')
    assert read_failure(folder.failed) is None
    assert write_failure(folder.failed, FAILURE)
    assert read_failure(folder.failed) == FAILURE


def test_a_disk_that_cannot_be_written_is_worth_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not write_failure(tmp_path / "missing" / "FAILED.json", FAILURE)
    assert "FAILED.json cannot be written: No such file or directory; going on without" in caplog.text


def test_a_failure_is_kept_under_a_number_once_its_step_is_passed(folder: RunDir) -> None:
    failures = [Failure(1, "n1", 12, "first"), Failure(0, "n0", 15, "second")]
    for failure in failures:
        write_failure(folder.failed, failure)
        archive_failure(folder.failed, failure.step)
        assert read_failure(folder.failed) == failure  # the step itself has to be over
        archive_failure(folder.failed, failure.step + 1)
        archive_failure(folder.failed, failure.step + 2)
    assert names(folder) == ["FAILED_1.json", "FAILED_2.json"]
    assert [read_failure(folder.path / name) for name in names(folder)] == failures


def start(folder: RunDir, state: str, updated: float = 0.0, **environment: object) -> None:
    content = {"state": state, "epoch": 1.5, "step": 40, "best": {}, "updated": updated or time.time()}
    folder.status.write_text(json.dumps(content))
    folder.environment.write_text(json.dumps({"started": time.time(), "hosts": ["n1", "n2"], **environment}))


@pytest.mark.parametrize("age", [0.0, 10 * LOST_AFTER], ids=["just now", "long ago"])
def test_an_end_without_a_word_is_recorded_by_the_next_start(folder: RunDir, age: float) -> None:
    start(folder, "running", time.time() - age)
    failure = record_silent_end(folder)
    assert failure is not None
    assert failure.reason == (
        "ended without a word, last heard of at step 40: killed (SIGKILL), out of memory, "
        "or the node went down (n1, n2)"
    )
    assert (failure.rank, failure.host, failure.step) == (None, "n1, n2", 40)
    assert not failure.step_known, "the status may be half a minute old"
    assert failure.retry, "who was killed may well succeed on another start"
    assert read_failure(folder.failed) == failure


@pytest.mark.parametrize("state", ["finished", "interrupted", "failed", "queued"])
def test_an_end_with_a_word_is_not(folder: RunDir, state: str) -> None:
    start(folder, state)
    assert record_silent_end(folder) is None
    assert not folder.failed.exists()


def test_a_new_folder_has_no_last_start(folder: RunDir) -> None:
    assert record_silent_end(folder) is None
    assert names(folder) == []


def test_a_last_start_that_left_its_failure_but_no_status_told_its_end(folder: RunDir) -> None:
    start(folder, "running", started=FAILURE.time - 60)
    write_failure(folder.failed, FAILURE)
    assert record_silent_end(folder) is None
    assert read_failure(folder.failed) == FAILURE


def test_an_older_failure_does_not_hide_a_silent_end(folder: RunDir) -> None:
    write_failure(folder.failed, FAILURE)
    start(folder, "running", started=0.0, restarts=[{"started": FAILURE.time + 60, "hosts": ["n7"]}])
    failure = record_silent_end(folder)
    assert failure is not None and failure.host == "n7"
    assert read_failure(folder.failed) == failure
    assert read_failure(folder.path / "FAILED_1.json") == FAILURE
