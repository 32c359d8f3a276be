"""tools.search on a real Slurm: trials that are array tasks, and a search that goes on with them after a kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from engine.run_folder.paths import RunDir
from tests.classification.small import write_config
from tests.distributed import ROOT
from tests.slurm.cluster import Cluster
from tools.submit.folders import read_note

pytestmark = pytest.mark.slurm


def search(cluster: Cluster, folder: Path) -> subprocess.CompletedProcess[str]:
    training, evaluation = {"steps": 40, "global_batch_size": 16}, {"every_steps": 10, "batch_size": 180}
    config, space = write_config(folder, training=training, evaluation=evaluation), folder / "space.yaml"
    space.write_text("parameters: {optimizer.lr: {log: [1e-5, 1e-2]}}\nsampler: {name: RandomSampler, seed: 1}\n")
    command = [sys.executable, "-m", "tools.search", "--task", "classification", "--config", config, "--space", space]
    command += ["--trials", 4, "--parallel", 2, "--gpus-per-node", 0]
    return cluster.run(*map(str, command), cwd=ROOT, env={"PYTHONPATH": str(ROOT)})


def test_trials_are_tasks_of_arrays(cluster: Cluster, tmp_path: Path) -> None:
    done = search(cluster, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    root = tmp_path / "experiments"
    file = root / ".search" / "space" / "journal.log"
    trials = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(file)))).trials
    states = [trial.state for trial in trials]
    assert len(states) == 4 and states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == 4
    notes = [read_note(RunDir(root / f"experiment_{number:04d}")) for number in (1, 2, 3, 4)]
    jobs = [note.job for note in notes if note is not None]
    assert jobs[0].partition("_")[0] == jobs[1].partition("_")[0] and [job[-2:] for job in jobs[:2]] == ["_0", "_1"]
    assert (root / ".search" / "space" / "best.yaml").is_file()
    again = search(cluster, tmp_path)
    assert again.returncode == 0 and "goes on after 4 trials" in again.stdout
    assert len(list(root.glob("experiment_*"))) == 4
