"""What Slurm tells a job, and the note by which a restarted job finds its folder."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from engine.distributed.slurm import (
    FOLDER_NOTE,
    expand_counts,
    job_end,
    job_name,
    note_folder,
    note_path,
    noted_folder,
    restart_count,
    seconds_left,
    waiting_job,
)
from engine.run_folder.paths import RunDir

JOB = {"SLURM_JOB_ID": "812", "SLURM_CLUSTER_NAME": "alps"}
TASK = {"SLURM_JOB_ID": "813", "SLURM_ARRAY_JOB_ID": "811", "SLURM_ARRAY_TASK_ID": "3", "SLURM_CLUSTER_NAME": "alps"}


def test_a_job_is_called_as_slurms_commands_take_it() -> None:
    assert [job_name(environment) for environment in ({}, JOB, TASK)] == [None, "812", "811_3"]


def test_the_first_start_has_no_count() -> None:
    assert [restart_count(env) for env in ({}, {"SLURM_RESTART_COUNT": ""}, {"SLURM_RESTART_COUNT": "2"})] == [0, 0, 2]


def test_expand_counts() -> None:
    assert expand_counts("2(x3),1") == [2, 2, 2, 1]
    assert expand_counts("4") == [4]
    assert expand_counts("1,2,3(x2)") == [1, 2, 3, 3]
    assert expand_counts("") == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("59:58\n", 3598),
        ("0:07", 7),
        ("12:00:00", 43200),
        ("2-01:00:01", 176401),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_the_time_that_squeue_says_is_left(text: str, seconds: float | None) -> None:
    assert seconds_left(text) == seconds


def squeue_that(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only squeue on the PATH is this one."""
    (folder / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_the_end_of_a_job_is_told_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue_that(tmp_path, f'echo "$@" > {tmp_path}/asked; echo 1:00', monkeypatch)
    assert job_end({}) is None
    assert job_end({**JOB, "SLURM_JOB_END_TIME": "1795400000"}) == 1795400000
    assert not (tmp_path / "asked").exists()
    end = job_end(TASK)
    assert end is not None
    assert abs(end - time.time() - 60) < 10
    assert "--jobs=811_3" in (tmp_path / "asked").read_text()


def test_without_an_answer_no_end_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue_that(tmp_path, "echo slurm_load_jobs error: cannot contact the controller >&2; exit 1", monkeypatch)
    assert job_end(JOB) is None
    os.unlink(tmp_path / "squeue")
    assert job_end(JOB) is None


def test_another_job_that_waits_to_go_on_in_a_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunDir.claim(tmp_path)
    squeue_that(tmp_path, f'echo "$@" > {tmp_path}/asked; echo PENDING', monkeypatch)
    assert waiting_job(folder, JOB) is None
    own, other = {"slurm": {"job_id": "812"}}, {"slurm": {"job_id": "9", "array_job_id": "8", "array_task_id": "1"}}
    folder.environment.write_text(json.dumps({**other, "restarts": [own]}))
    assert waiting_job(folder, JOB) is None
    assert not (tmp_path / "asked").exists()
    folder.environment.write_text(json.dumps({**own, "restarts": [other]}))
    assert waiting_job(folder, JOB) == "8_1"
    assert "--jobs=8_1" in (tmp_path / "asked").read_text()
    squeue_that(tmp_path, "echo RUNNING", monkeypatch)
    assert waiting_job(folder, JOB) is None


def test_a_job_finds_the_folder_of_what_it_asked_for_again(tmp_path: Path) -> None:
    first, second = RunDir.claim(tmp_path), RunDir.claim(tmp_path)
    note_folder(first, tmp_path, ["a.yaml", "x=1"], JOB)
    note_folder(second, tmp_path, ["a.yaml", "x=2"], JOB)
    assert noted_folder(tmp_path, ["a.yaml", "x=1"], JOB) == first
    assert noted_folder(tmp_path, ["a.yaml", "x=2"], JOB) == second
    assert noted_folder(tmp_path, ["a.yaml"], JOB) is None
    assert noted_folder(tmp_path, ["a.yaml", "x=1"], TASK) is None
    assert noted_folder(tmp_path, ["a.yaml", "x=1"], {}) is None
    assert note_path(tmp_path, ["a.yaml"], {}) is None


def test_a_folder_that_is_gone_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = RunDir.claim(tmp_path)
    note_folder(folder, tmp_path, ["a"], JOB)
    folder.path.rmdir()
    assert noted_folder(tmp_path, ["a"], JOB) is None


def test_the_launch_script_is_told_the_folder(tmp_path: Path) -> None:
    folder, note = RunDir.claim(tmp_path), tmp_path / "note"
    note_folder(folder, tmp_path, ["a"], {FOLDER_NOTE: str(note)})
    assert note.read_text() == str(folder.path)
