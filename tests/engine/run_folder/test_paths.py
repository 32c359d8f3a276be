"""Experiment folders: numbers are claimed once, names are those of the contract."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.run_folder.paths import RunDir, experiment_number

CLAIM = """
import sys
from pathlib import Path
from engine.run_folder.paths import RunDir
print("ready", flush=True)
sys.stdin.readline()
print(*(RunDir.claim(Path(sys.argv[1])).name for _ in range(2)))
"""


def test_64_processes_claim_different_numbers(tmp_path: Path) -> None:
    root = tmp_path / "experiments"
    command = [sys.executable, "-c", CLAIM, os.fspath(root)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(64)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all are up, so now they race
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    names = [name for process in processes for name in process.communicate()[0].split()]
    assert sorted(names) == [f"experiment_{number:04d}" for number in range(1, 129)]
    assert sorted(path.name for path in root.iterdir()) == sorted(names)


def test_numbers_go_on_after_the_highest(tmp_path: Path) -> None:
    assert RunDir.claim(tmp_path).name == "experiment_0001"
    for name in ("experiment_0041", "experiment_7", "experiment_0050_old", "other"):
        (tmp_path / name).mkdir()
    assert RunDir.claim(tmp_path).name == "experiment_0042"
    (tmp_path / "experiment_0042").rmdir()
    (tmp_path / "experiment_9999").mkdir()
    assert [RunDir.claim(tmp_path).name for _ in range(2)] == ["experiment_10000", "experiment_10001"]


def test_a_root_that_is_a_file_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"experiment\.root: no folder can be made in .*file"):
            RunDir.claim(root)


def test_names() -> None:
    run_dir = RunDir(Path("/runs/experiment_0007"))
    paths = {
        "README.md": run_dir.readme,
        "config.yaml": run_dir.config,
        "environment.json": run_dir.environment,
        "status.json": run_dir.status,
        "FAILED.json": run_dir.failed,
        "metrics.jsonl": run_dir.metrics,
        "logs/rank_3.log": run_dir.log_file(3),
        "checkpoints": run_dir.checkpoints,
        "results": run_dir.results,
        "results/val": run_dir.results_for("val"),
    }
    assert {name: os.fspath(path) for name, path in paths.items()} == {
        name: f"/runs/experiment_0007/{name}" for name in paths
    }
    assert experiment_number(run_dir.path) == 7
    assert experiment_number(Path("experiment_12345")) == 12345
    assert experiment_number(Path("experiment_7")) is None
