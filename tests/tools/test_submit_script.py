"""The batch script of a submitted job, with stand-ins for srun and scontrol: when it requeues the job, and as what."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from submitit.slurm.slurm import _make_sbatch_string

from engine.run_folder.failure import Failure, write_failure
from tests.distributed import ROOT
from tests.slurm.standins import StandIns
from tools.submit.resources import Resources, slurm_parameters

KILLED = -signal.SIGTERM


class Submitted(StandIns):
    """A submitted job, without a queue."""

    resources = Resources()

    def __call__(self, place: str = "", **variables: str) -> tuple[int, str]:
        parameters = slurm_parameters(self.resources, "name", self.record, ROOT, place)
        script = self.record / "submission.sh"
        script.write_text(_make_sbatch_string(command="python", folder=self.record, **parameters))
        return self.run(["bash", str(script)], variables)


@pytest.fixture
def job(tmp_path: Path) -> Submitted:
    return Submitted(tmp_path)


@pytest.mark.parametrize(
    ("status", "variables", "requeued"),
    [
        ("0", {}, ""),
        ("1", {}, ""),
        ("2", {}, ""),
        ("75", {}, "requeue 7"),
        ("75", {"STATE": "CANCELLED"}, ""),
        ("75", {"STATE": "COMPLETING Reason=None"}, ""),
        ("75", {"STATE": "COMPLETING Reason=TimeLimit"}, "requeue 7"),
        ("75", {"STATE": "PENDING"}, ""),
        ("75", {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}, "requeue 5_2"),
        ("137", {}, "requeue 7"),
    ],
)
def test_what_is_to_go_on_is_requeued_and_it_says_so(
    job: Submitted, status: str, variables: dict[str, str], requeued: str
) -> None:
    code, output = job(STATUS=status, **variables)
    assert code == (KILLED if requeued else int(status)), output
    assert job.requeued == requeued
    assert (f"ended with {status}: requeueing" in output) == bool(requeued)


@pytest.mark.parametrize("retry", [True, False])
def test_only_what_may_well_succeed_is_tried_again(job: Submitted, tmp_path: Path, retry: bool) -> None:
    write_failure(tmp_path / "FAILED.json", Failure(1, "n1", 7, "rank 1 vanished", retry=retry, time=time.time() + 60))
    code, output = job(STATUS="1", FOLDER=str(tmp_path))
    assert code == (KILLED if retry else 1), output


@pytest.mark.parametrize("exclude", [True, False])
def test_the_node_that_failed_is_excluded_if_that_is_wanted(job: Submitted, tmp_path: Path, exclude: bool) -> None:
    job.resources = Resources(exclude_failed=exclude)
    (tmp_path / "environment.json").write_text(json.dumps({"devices": [{"rank": 1, "node": "n1"}]}))
    failure = Failure(1, "host", 7, "rank 1 on host vanished", retry=True, time=time.time() + 60)
    write_failure(tmp_path / "FAILED.json", failure)
    job(STATUS="1", FOLDER=str(tmp_path), NODES="n0|idle| n1|mix| n2|idle|")
    assert (job.requeued, job.updated) == ("requeue 7", "update JobId=7 ExcNodeList=n1" if exclude else "")


def test_gpus_without_a_process_each_are_refused_before_anything_runs(job: Submitted) -> None:
    code, output = job(SLURM_GPUS_ON_NODE="4", SLURM_NTASKS_PER_NODE="1")
    assert code == 2
    assert "1 task(s) but 4 GPU(s) on each node" in output
    assert not (job.record / "arguments").exists()


def test_a_job_that_never_begins_to_train_is_requeued_twice(job: Submitted, tmp_path: Path) -> None:
    outcomes = [job(STATUS="137", SLURM_RESTART_COUNT=str(number)) for number in range(3)]
    assert [code for code, _ in outcomes] == [KILLED, KILLED, 1]
    assert "3 starts in a row ended before training began" in outcomes[-1][1]
    assert job.requeued == ""


def test_its_environment_is_set_up_as_a_templates_is(job: Submitted, tmp_path: Path) -> None:
    (tmp_path / "cluster.sh").write_text("export FROM_FILE=here\nmodule load nothing; echo loaded; false\n")
    code, output = job(str(tmp_path / "cluster.sh"))
    assert code == 0, output
    assert "loaded" in output
    assert job.environment["FROM_FILE"] == "here"
    (tmp_path / "cluster.sh").write_text("exit 0\n")
    assert job(str(tmp_path / "cluster.sh"))[0] == 2
