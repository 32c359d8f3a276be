"""The door for the next task: one from outside is trained, resumed, evaluated, checked and submitted by its spec."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml

from engine.config.run import RunConfig
from engine.errors import UserError
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from engine.task.spec import Later, find_spec, known_tasks
from tests.distributed import ROOT, Group, launch
from tools.chaos.compare import board_fault, checkpoint_differences, records_difference

TASK = "tests.toy_task"
PACKAGE = Path(__file__).parent / "toy_task"
CONFIG = {
    "training": {"steps": 60, "global_batch_size": 8, "precision": "fp32", "ema": {}},
    "schedule": {"name": "constant"},
    "evaluation": {"every_steps": 30},
    "checkpoint": {"every_steps": 5},
    "logging": {"every_steps": 5},
    "distributed": {"device": "cpu"},
}


def run(module: str, *arguments: object, code: int = 0) -> str:
    (ended,) = launch(1, [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT)
    assert ended.returncode == code, ended.output
    return ended.output


def assert_same_bits(reference: RunDir, other: RunDir) -> None:
    assert not {name: fault for name, fault in checkpoint_differences(reference, other).items() if fault}
    for split in ("train", "val"):
        assert records_difference(reference.metrics, other.metrics, split) is None


def test_the_door_is_wide_enough(tmp_path: Path) -> None:
    assert sum(len(file.read_text().splitlines()) for file in PACKAGE.glob("*.py")) < 150
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "experiment": {"root": str(tmp_path / "experiments")}}))
    reference, killed, submitted = (RunDir(tmp_path / "experiments" / f"experiment_000{n}") for n in (1, 2, 3))

    checked = run("tools.check", "--task", TASK, "--config", config, "--quick", "--no-login-node")
    assert "train: 96 points" in checked
    refused = run("tools.check", "--task", TASK, "--config", config, "--quick", "training.global_batch_size=97", code=2)
    assert "97 is more than the 96 training samples" in refused
    refused = run(f"{TASK}.train", "--config", config, "evaluation.metric=AP", code=2)
    assert "evaluation.metric: 'AP' is not measured; there are loss, r2" in refused

    run(f"{TASK}.train", "--config", config)
    with Group(1, [sys.executable, "-m", f"{TASK}.train", "--config", str(config)], cwd=ROOT) as group:
        while not (killed.checkpoints.is_dir() and any(killed.checkpoints.glob("step_*.pt"))):
            assert group.processes[0].poll() is None, group.output(0)
            time.sleep(0.002)
        group.processes[0].send_signal(signal.SIGKILL)
        group.wait(60)
    step = json.loads(killed.status.read_text())["step"]
    assert "resumed from" in run(f"{TASK}.train", "--resume", killed.path) and step < 60
    assert_same_bits(reference, killed)
    assert board_fault(reference.tensorboard, killed.tensorboard, 60) is None

    run("tools.submit", "--task", TASK, "--config", config, "--cluster", "debug")
    assert_same_bits(reference, submitted)

    run(f"{TASK}.evaluate", "--experiment", killed.path, "--checkpoint", "last")
    during, after = (read_metrics(killed.metrics, "val")[n] for n in (-2, -1))
    metrics = json.loads((killed.results_for("val") / "metrics.json").read_text())
    assert after["source"] == "evaluate" and metrics == {name: during[name] for name in ("loss", "r2")}
    assert f"python -m {TASK}.evaluate" in killed.readme.read_text()


@pytest.mark.parametrize("name", ["clasification", "tests.toy", "", ".toy", "no such", "json"])
def test_a_task_that_is_not_there_is_named_with_those_that_are(name: str) -> None:
    with pytest.raises(UserError, match=f"--task: there is no '{name}'; there are classification, detection") as error:
        find_spec(name)
    assert ("did you mean 'classification'?" in str(error.value)) == (name == "clasification")


def test_a_spec_that_lacks_a_package_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_task").mkdir()
    (tmp_path / "broken_task" / "spec.py").write_text("import no_such_package\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        find_spec("broken_task")


@pytest.mark.parametrize("name", [*known_tasks(), TASK])
def test_every_part_of_a_spec_is_there(name: str) -> None:
    spec = find_spec(name)
    assert issubclass(spec.schema(), RunConfig)
    parts = [part for part in vars(spec).values() if isinstance(part, Later)]
    assert len(parts) >= 4 and all(callable(part.load()) for part in parts)
