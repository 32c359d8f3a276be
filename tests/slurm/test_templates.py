"""The templates in slurm/ on a real Slurm of two nodes: many at once, evaluation, and wrong input."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.classification.small import write_config
from tests.detection import small as small_detection
from tests.diffusion import small as small_diffusion
from tests.slurm.cluster import Cluster, free_ports
from tests.slurm.jobs import CPU, TWO_NODES, Job, assert_same_result, submit

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def eight(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> list[Job]:
    """Eight jobs at once in one place, each over both nodes, while the port that torch defaults to is in use."""
    place = tmp_path_factory.mktemp("eight")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("0.0.0.0", 29500))
        taken.listen()
        arguments = ("--config", str(write_config(place, training={"steps": 2})))
        jobs = [submit(cluster, place, *TWO_NODES, arguments=arguments) for _ in range(8)]
        cluster.wait_ended([job.number for job in jobs], 400)
    return jobs


def test_eight_jobs_at_once_have_eight_folders(eight: list[Job]) -> None:
    assert [job.details["JobState"] for job in eight] == ["COMPLETED"] * 8, eight[0].output
    environments = [json.loads(run.environment.read_text()) for run in eight[0].runs]
    assert sorted(env["slurm"]["job_id"] for env in environments) == sorted(job.number for job in eight)
    assert [json.loads(run.status.read_text())["state"] for run in eight[0].runs] == ["finished"] * 8


def test_evaluation_writes_its_report(cluster: Cluster, eight: list[Job]) -> None:
    run, place = eight[0].runs[0], eight[0].place
    job = submit(cluster, place, *CPU, template="test_clf", arguments=("--experiment", str(run.path)))
    assert job.wait_ended() == "COMPLETED", job.output
    assert (run.results_for("val") / "report.md").is_file()


def test_one_device_is_what_the_default_template_takes(cluster: Cluster, tmp_path: Path) -> None:
    arguments = ("--config", str(write_config(tmp_path, training={"steps": 2})))
    job = submit(cluster, tmp_path, *CPU, template="train_clf_default", arguments=arguments)
    job.assert_completed()
    assert len(job.environment["devices"]) == 1


def test_a_detector_is_trained_on_two_nodes_and_evaluated(cluster: Cluster, tmp_path: Path) -> None:
    arguments = ("--config", str(small_detection.write_config(tmp_path, training={"steps": 2})))
    job = submit(cluster, tmp_path, *TWO_NODES, template="train_det_ddp", arguments=arguments)
    job.assert_completed()
    assert len(job.environment["devices"]) == 2
    evaluation = submit(cluster, tmp_path, *CPU, template="test_det", arguments=("--experiment", str(job.run.path)))
    assert evaluation.wait_ended() == "COMPLETED", evaluation.output
    assert (job.run.results_for("val") / "detections.json").is_file()


def test_a_diffusion_is_trained_on_two_nodes_requeued_and_sampled(cluster: Cluster, tmp_path: Path) -> None:
    changes = {"training": {"steps": 40, "ema": {"decay": 0.9}}, "checkpoint": {"every_steps": 4}}
    jobs = []
    for name in ("undisturbed", "requeued"):
        (tmp_path / name).mkdir()
        arguments = ("--config", str(small_diffusion.write_config(tmp_path / name, **changes)))
        jobs.append(submit(cluster, tmp_path / name, *TWO_NODES, template="train_diff_ddp", arguments=arguments))
        if name == "requeued":
            jobs[-1].wait_training()
            cluster.run("scontrol", "requeue", jobs[-1].number)
        jobs[-1].assert_completed()
    undisturbed, requeued = jobs
    assert len(requeued.environment["devices"]) == 2 and requeued.details["Restarts"] == "1"
    assert_same_result(undisturbed.run, requeued.run)
    asked = ("--experiment", str(requeued.run.path), "--num-images", "20", "--grid")
    sampling = submit(cluster, tmp_path, *TWO_NODES, template="sample_diff", arguments=asked)
    assert sampling.wait_ended() == "COMPLETED", sampling.output
    assert len(list(requeued.run.results_for("samples").glob("class_*.png"))) == 20


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        (
            ("--ntasks-per-node=2", "--ntasks=3"),
            None,
            '3 task(s) on 2 node(s): every node takes as many; remove --ntasks and set the line "#S',
        ),
        ((), ("--config", "nowhere.yaml"), "nowhere.yaml"),
        ((), (), "data.root: "),
    ],
)
def test_wrong_input_ends_the_job_at_once(
    cluster: Cluster, tmp_path: Path, options: tuple[str, ...], arguments: tuple[str, ...] | None, message: str
) -> None:
    job = submit(cluster, tmp_path, *TWO_NODES, *options, arguments=arguments)
    assert job.wait_ended() == "FAILED"
    assert message in job.output
    assert job.details["Restarts"] == "0"
    assert not job.runs


def test_torchrun_on_two_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """As docs/clusters.md has it, but for the first node's address: n0 is no name that can be resolved."""
    config = write_config(tmp_path, training={"steps": 2})
    script = tmp_path / "torchrun.sbatch"
    script.write_text(
        "#!/usr/bin/env bash\nsrun --kill-on-bad-exit=1 torchrun --nnodes=$SLURM_JOB_NUM_NODES --nproc-per-node=1 "
        f"--rdzv-id=$SLURM_JOB_ID --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:{free_ports(1)[0]} "
        f"-m classification.train --config {config}\n"
    )
    path = os.pathsep.join([os.path.join(sys.prefix, "bin"), cluster.environment["PATH"]])
    job = Job(cluster, cluster.sbatch(*TWO_NODES, str(script), cwd=tmp_path, env={"PATH": path}), tmp_path)
    job.assert_completed()
    assert len(job.environment["devices"]) == 2


def test_what_slurm_refuses_is_told_in_its_own_words(cluster: Cluster, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(AssertionError, match="invalid partition"):
        submit(cluster, tmp_path, *TWO_NODES, "--partition=nowhere")
    with pytest.raises(AssertionError, match=r"Requested node configuration|gres|GRES"):
        submit(cluster, tmp_path, "--mem=0")  # eight GPUs a node, and there are none
    assert time.monotonic() - begin < 10
