"""What is kept of an evaluation, and refused before one."""

from __future__ import annotations

import json
from pathlib import Path

from engine.commands.evaluate import record_evaluation
from engine.config.run import RunConfig
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from engine.task.experiment import Experiment
from engine.task.inference import Measured


def test_an_evaluation_leaves_a_report_and_a_record(tmp_path: Path) -> None:
    folder = RunDir.claim(tmp_path)
    saved = {"run": {"step": 30}, "epoch": 1.5}
    experiment = Experiment(folder, RunConfig(), folder.checkpoints / "best.pt", saved, ("data.image_size=64",))
    titles = []

    def write(results: Path, title: str) -> None:
        titles.append(title)
        (results / "report.md").write_text(title)

    record_evaluation(experiment, "val", Measured({"AP": 0.5, "AP_large": float("nan")}, write))
    assert titles == ["experiment_0001: best.pt (step 30) on val, with data.image_size=64"]
    assert (folder.results_for("val") / "report.md").is_file()
    made_from = json.loads((folder.results_for("val") / "made_from.json").read_text())
    assert made_from == {"checkpoint": "best.pt", "step": 30, "changes": ["data.image_size=64"]}
    (record,) = read_metrics(folder.metrics, "val")
    kept = {name: record[name] for name in ("step", "epoch", "AP", "source", "checkpoint", "changes")}
    assert kept == {
        "step": 30, "epoch": 1.5, "AP": 0.5,
        "source": "evaluate", "checkpoint": "best.pt", "changes": "data.image_size=64",
    }  # fmt: skip


def test_the_runs_own_data_are_no_other_evaluation_elsewhere(tmp_path: Path) -> None:
    folder = RunDir.claim(tmp_path)
    changes = ("finetune.weights=/elsewhere", "data.image_size=64")
    experiment = Experiment(folder, RunConfig(), Path("best.pt"), {"run": {"step": 30}, "epoch": 1.5}, changes)
    titles: list[str] = []
    record_evaluation(experiment, "val", Measured({}, lambda results, title: titles.append(title), own_data=True))
    assert titles == ["experiment_0001: best.pt (step 30) on val, with data.image_size=64"]
