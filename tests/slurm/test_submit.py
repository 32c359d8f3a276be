"""tools.submit on a real Slurm: what it queues, what becomes of it, and what it refuses with Slurm's own words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from engine.run_folder.paths import RunDir
from tests.classification.small import write_config
from tests.distributed import ROOT
from tests.slurm.cluster import Cluster
from tools.snapshot import take_snapshot
from tools.submit.folders import Note, read_note

pytestmark = pytest.mark.slurm

RARELY = {"every_epochs": 99, "batch_size": 90}


def submit(cluster: Cluster, *arguments: object, code: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.submit", *map(str, arguments)]
    return cluster.run(*command, cwd=code, env={"PYTHONPATH": str(code)})


def submit_config(cluster: Cluster, config: Path, *arguments: object, code: Path = ROOT) -> list[Path]:
    """The folders of the runs that were queued."""
    root = config.parent / "experiments"
    before = set(root.glob("experiment_*"))
    done = submit(cluster, "--task", "classification", "--config", config, "--gpus-per-node", 0, *arguments, code=code)
    assert done.returncode == 0, done.stderr
    return sorted(set(root.glob("experiment_*")) - before)


def note(run: Path) -> Note:
    found = read_note(RunDir(run))
    assert found is not None
    return found


def state(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["state"]


def starts(run: Path) -> list[dict]:
    if not (run / "environment.json").exists():
        return []
    environment = json.loads((run / "environment.json").read_text())
    return [environment, *environment["restarts"]]


def records(run: Path, split: str = "train") -> list[dict]:
    if not (run / "metrics.jsonl").exists():
        return []
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == split]


def wait_for_progress(cluster: Cluster, run: Path, number: int) -> None:
    """Until the start of that number, counted from 1, has recorded something."""

    def progressing() -> bool:
        own = starts(run)
        return len(own) >= number and any(record["time"] > own[-1]["started"] for record in records(run))

    cluster.wait_for(progressing, 120, f"start {number} of {run}: {note(run)}")


def output(run: Path) -> str:
    path = Path(note(run).log)
    return path.read_text() if path.exists() else "no output"


def test_a_sweep_is_an_array_of_which_only_the_preempted_task_starts_again(cluster, tmp_path):
    config = write_config(tmp_path, training={"steps": 300}, evaluation=RARELY)
    wide = ("--cpus-per-task", 8, "--array-parallelism", 2)  # a task fills a node
    sweep = ("--sweep", "optimizer.lr=1e-4,1e-3,3e-3", "--sweep", "model.drop_path=0.0,0.1")
    began = time.monotonic()
    runs = submit_config(cluster, config, *wide, *sweep)
    assert time.monotonic() - began < 30, "it returns at once"
    jobs = [note(run).job for run in runs]
    array = jobs[0].partition("_")[0]
    assert jobs == [f"{array}_{task}" for task in range(6)]
    assert [run.name for run in runs] == [f"experiment_000{number}" for number in range(1, 7)]
    cluster.wait_for(lambda: len(records(runs[0])) > 1 and len(records(runs[1])) > 1, 90, "two tasks to train")
    waiting = submit(cluster, "--status", tmp_path / "experiments").stdout
    assert "4 waiting" in waiting, waiting
    assert "#SBATCH --array=0-5%2\n" in (Path(note(runs[0]).log).parent / f"{array}_submission.sh").read_text()
    urgent = cluster.sbatch("--partition=urgent", "--cpus-per-task=8", "--wrap=true", cwd=tmp_path)
    cluster.wait_for(lambda: all(state(run) == "finished" for run in runs), 300, "six results")
    assert cluster.wait_ended([*jobs, urgent]) == ["COMPLETED"] * 7
    restarts = [int(cluster.job(job)["Restarts"]) for job in jobs]
    assert sorted(restarts) == [0, 0, 0, 0, 0, 1]
    assert [len(starts(run)) - 1 for run in runs] == restarts
    for run, lr in zip(runs, ("1e-4", "1e-4", "1e-3", "1e-3", "3e-3", "3e-3"), strict=True):
        assert state(run) == "finished"
        assert f"optimizer.lr={lr}" in yaml.safe_load((run / "config.yaml").read_text())["experiment"]["name"]
        assert [record["step"] for record in records(run, "val")] == [300]
        assert [record["step"] for record in records(run)] == sorted({record["step"] for record in records(run)})
    assert "6 finished" in submit(cluster, "--status", tmp_path / "experiments").stdout
    assert "nothing to retry" in submit(cluster, "--retry", tmp_path / "experiments").stdout


def test_a_job_of_two_nodes_comes_back_until_it_is_cancelled_and_is_retried(cluster, tmp_path):
    config = write_config(tmp_path, training={"steps": 900}, evaluation=RARELY, checkpoint={"every_steps": 25})
    (run,) = submit_config(cluster, config, "--nodes", 2, "--cpus-per-task", 2, "--time", "30")
    job = note(run).job
    wait_for_progress(cluster, run, 1)
    devices = starts(run)[0]["devices"]
    assert len(devices) == 2
    variables = Path(f"/proc/{devices[0]['pid']}/environ").read_text().split("\0")
    assert {"SLURM_CPUS_PER_TASK=2", "SRUN_CPUS_PER_TASK=2"} <= set(variables)
    cluster.run("scancel", "--signal=USR1", job)
    wait_for_progress(cluster, run, 2)
    os.kill(starts(run)[1]["devices"][1]["pid"], signal.SIGKILL)
    wait_for_progress(cluster, run, 3)
    assert (cluster.state(job), cluster.job(job)["Restarts"]) == ("RUNNING", "2")
    cluster.run("scancel", job)
    assert cluster.wait_ended([job]) == ["CANCELLED"], output(run)
    assert state(run) == "interrupted"
    assert "interrupted" in submit(cluster, "--status", run).stdout
    done = submit(cluster, "--retry", run)
    assert done.returncode == 0, done.stderr
    again = note(run).job
    assert again != job
    assert f"scancel {again}" in done.stdout
    assert cluster.wait_ended([again]) == ["COMPLETED"], output(run)
    assert state(run) == "finished"
    assert [len(start["devices"]) for start in starts(run)] == [2, 2, 2, 2]
    steps = [record["step"] for record in records(run)]
    assert steps == sorted(set(steps))
    assert {*range(2, 901, 2)} <= {*steps}


def test_a_pending_job_runs_the_code_and_the_configuration_of_its_submission(cluster, tmp_path):
    clone = take_snapshot(ROOT, tmp_path / "clones")
    (clone / "engine" / "untracked.py").write_text("WORDS = 'as submitted'\n")
    run_file = clone / "engine" / "commands" / "train.py"
    run_file.write_text(run_file.read_text() + "\nfrom engine.untracked import WORDS\n\nprint(WORDS)\n")
    config = write_config(tmp_path, training={"steps": 2}, evaluation=RARELY)
    (run,) = submit_config(cluster, config, "--slurm", "begin=now+1hour", code=clone)
    job = note(run).job
    assert cluster.state(job) == "PENDING"
    (clone / "engine" / "untracked.py").write_text("raise SystemExit('edited')\n")
    run_file.write_text("raise SystemExit('edited')\n")
    config.write_text(config.read_text().replace("steps: 2", "steps: 7"))
    cluster.release(job)
    assert cluster.wait_ended([job]) == ["COMPLETED"], output(run)
    assert "as submitted" in output(run)
    assert f"code: {tmp_path}/experiments/.snapshots/{note(run).snapshot}\n" in output(run)
    assert [start["snapshot"] for start in starts(run)] == [note(run).snapshot]
    assert json.loads((run / "status.json").read_text())["step"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--partition", "nope"], "invalid partition specified: nope"),
        (["--gpus-per-node", "4"], "Invalid generic resource (gres) specification"),
        (["--sweep", "optimizer.lrr=1,2"], "optimizer.lrr: unknown key"),
    ],
)
def test_what_slurm_refuses_leaves_nothing_behind(cluster, tmp_path, arguments, words):
    config = write_config(tmp_path)
    done = submit(cluster, "--task", "classification", "--config", config, "--gpus-per-node", 0, *arguments)
    assert done.returncode == 2
    assert words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    root = tmp_path / "experiments"
    assert not [*root.glob("experiment_*"), *root.glob(".submitit/*")]
