"""Jobs that are interrupted come back in the same folder and end in the same bits, on a real Slurm of two nodes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from engine.run_folder.failure import read_failure
from tests.classification.small import write_config
from tests.slurm.cluster import REQUEUE_SECONDS, Cluster
from tests.slurm.jobs import SECTIONS, STEPS, TWO_NODES, Job, assert_same_result, copy_code, submit

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def uninterrupted(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job on two nodes that nobody disturbed."""
    job = submit(cluster, tmp_path_factory.mktemp("uninterrupted"), *TWO_NODES)
    job.assert_completed()
    return job


def assert_came_back(job: Job, uninterrupted: Job, restarts: int = 1) -> None:
    """It was restarted, by default once, in its folder, ran the same code, and nothing shows in the result."""
    job.assert_completed()
    starts = [job.environment, *job.environment["restarts"]]
    assert len(starts) == restarts + 1, job.output
    assert job.details["Restarts"] == str(restarts)
    assert len({start["snapshot"] for start in starts}) == 1
    assert starts[0]["snapshot"] is not None
    assert [start["step"] for start in starts] == sorted({start["step"] for start in starts})
    assert_same_result(uninterrupted.run, job.run)


def test_a_job_on_two_nodes_leaves_what_is_promised(uninterrupted: Job) -> None:
    run = uninterrupted.run
    assert [rank["rank"] for rank in uninterrupted.environment["devices"]] == [0, 1]
    assert sorted(path.name for path in run.logs.iterdir()) == ["rank_0.log", "rank_1.log"]
    assert json.loads(run.status.read_text())["step"] == STEPS
    assert uninterrupted.environment["slurm"]["job_id"] == uninterrupted.number
    assert not run.failed.exists()


def test_a_signal(cluster: Cluster, uninterrupted: Job, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, *TWO_NODES)
    job.wait_training()
    cluster.run("scancel", "--signal=USR1", job.number)
    assert_came_back(job, uninterrupted)


def test_scontrol_requeue_runs_the_code_and_settings_of_the_first_start(
    cluster: Cluster, uninterrupted: Job, tmp_path: Path
) -> None:
    code = copy_code(tmp_path / "code")
    job = submit(cluster, tmp_path, *TWO_NODES, code=code)
    job.wait_training()
    (code / "engine" / "training" / "trainer.py").write_text("raise SystemExit('edited')\n")
    configuration = tmp_path / "run.yaml"
    configuration.write_text(configuration.read_text().replace("every_steps: 5", "every_steps: 6"))
    cluster.run("scontrol", "requeue", job.number)
    assert_came_back(job, uninterrupted)


def test_a_killed_rank(cluster: Cluster, uninterrupted: Job, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, *TWO_NODES, env={"SWIN_EXCLUDE_FAILED": "1"})
    job.wait_training()
    job.kill_rank(1)
    assert_came_back(job, uninterrupted)
    failure = json.loads(job.run.path.joinpath("FAILED_1.json").read_text())
    assert failure["rank"] == 1
    assert failure["wait_status"].startswith("SIGKILL: usually out of memory")
    assert "node n1 is not excluded: that would leave 1 node(s) to a job that needs 2" in job.output
    assert job.details["ExcNodeList"] == "(null)"


def test_a_hang_is_tried_again_on_another_node_and_an_error_of_the_code_is_not(
    cluster: Cluster, uninterrupted: Job, tmp_path: Path
) -> None:
    one_node = (*TWO_NODES, "--nodes=1", "--ntasks-per-node=2")
    (tmp_path / "hang").mkdir()
    arguments = ("--config", str(write_config(tmp_path / "hang", **SECTIONS, distributed={"timeout_seconds": 15})))
    variables = {"HANG_AT": "11", "SWIN_EXCLUDE_FAILED": "1"}
    job = submit(cluster, tmp_path / "hang", *one_node, arguments=arguments, env=variables)
    faulty = submit(cluster, tmp_path / "error", *one_node, env={"RAISE_AT": "9", "SLOW_STEPS": "0"})
    assert faulty.wait_ended() == "FAILED"
    assert (faulty.details["ExitCode"], faulty.details["Restarts"]) == ("1:0", "0")
    assert json.loads(faulty.run.failed.read_text())["exception"] == "ValueError"
    assert_came_back(job, uninterrupted)
    failure = json.loads(job.run.path.joinpath("FAILED_1.json").read_text())
    assert (failure["rank"], failure["retry"]) == (1, True)
    first, second = job.environment, job.environment["restarts"][0]
    assert [[rank["node"] for rank in start["devices"]] for start in (first, second)] in (
        [["n0", "n0"], ["n1", "n1"]],
        [["n1", "n1"], ["n0", "n0"]],
    )
    excluded = first["devices"][1]["node"]
    assert job.details["ExcNodeList"] == excluded
    assert f"; {failure['reason']}" in job.output
    assert f"node {excluded} is excluded from the job's next starts" in job.output


def test_a_node_that_loses_the_step(cluster: Cluster, uninterrupted: Job, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, *TWO_NODES, env={"SLURM_WAIT": "5"})
    job.wait_training()
    job.kill_step(1)
    assert_came_back(job, uninterrupted)


def test_preemption(cluster: Cluster, uninterrupted: Job, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, *TWO_NODES)
    job.wait_training()
    everything = ("--partition=urgent", "--nodes=2", "--ntasks-per-node=8", "--output=/dev/null", "--wrap=sleep 2")
    urgent = cluster.sbatch(*everything, cwd=tmp_path)
    assert cluster.wait_ended([urgent]) == ["COMPLETED"]
    assert_came_back(job, uninterrupted)


def test_the_time_limit_by_the_runs_own_clock(cluster: Cluster, uninterrupted: Job, tmp_path: Path) -> None:
    """--time=1 leaves a start about 44 s; this run sleeps for longer than that."""
    job = submit(cluster, tmp_path, *TWO_NODES, "--time=1", "--signal=CONT@1", env={"SLOW_STEPS": "0.7"})
    job.assert_completed()
    assert "the job's time is up in" in job.output
    assert_came_back(job, uninterrupted, restarts=int(job.details["Restarts"]))


def test_scancel_is_final(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, *TWO_NODES)
    job.wait_training()
    cluster.run("scancel", job.number)
    assert job.wait_ended() == "CANCELLED"
    time.sleep(REQUEUE_SECONDS + 2)
    assert job.details["JobState"] == "CANCELLED"
    assert job.details["Restarts"] == "0"


def test_a_job_that_crashes_twice_at_a_step_gives_up(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, *TWO_NODES, env={"SLOW_STEPS": "0.02", "CRASH_AT": "19"})
    assert job.wait_ended() == "FAILED"
    assert job.details["ExitCode"] == "1:0"
    assert job.details["Restarts"] == "2"
    failure = read_failure(job.run.failed)
    assert failure is not None
    assert "not tried again: 2 starts have failed at step 1" in failure.reason
    assert json.loads(job.run.status.read_text())["state"] == "failed"


def test_only_the_array_task_that_is_interrupted_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, *TWO_NODES, "--nodes=1", "--array=1-2")
    tasks = [f"{job.number}_{number}" for number in (1, 2)]
    cluster.wait_for(lambda: len(job.runs) == 2 and all(run.metrics.exists() for run in job.runs), 120, "both tasks")
    cluster.run("scancel", "--signal=USR1", tasks[1])
    assert cluster.wait_ended(tasks) == ["COMPLETED"] * 2
    assert [cluster.job(task)["Restarts"] for task in tasks] == ["0", "1"]
    environments = [json.loads(run.environment.read_text()) for run in job.runs]
    assert sorted((env["slurm"]["array_task_id"], len(env["restarts"])) for env in environments) == [("1", 0), ("2", 1)]
