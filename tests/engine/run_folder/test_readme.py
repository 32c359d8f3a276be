"""README.md of a run: what it tells at the start, in between and at the end."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from engine.run_folder.paths import RunDir
from engine.run_folder.readme import write_readme

CONFIG = {
    "experiment": {"name": "first | try", "tags": ["small"], "notes": "To see\nwhether it works.", "seed": 3},
    "model": {"name": "swin_tiny"},
    "data": {"source": "folder", "root": "/images"},
    "optimizer": {"name": "adamw", "lr": 0.001},
    "training": {"epochs": 3, "steps": None, "global_batch_size": 64},
}
STATUS = {
    "state": "running",
    "epoch": 2.0,
    "step": 20,
    "best": {"step": 10, "epoch": 1.0, "top1": 0.75},
}
DEVICES = [{"rank": rank, "device_name": "Card"} for rank in range(2)]
START = {
    "started": 1e9,
    "command": "python -m classification.train --config a.yaml",
    "git": {"commit": "0123456789abcdef", "changed_files": ["a.py"]},
    "hosts": ["n0", "n1"],
    "devices": DEVICES,
    "slurm": {"job_id": "812"},
}
RECORDS: list[dict[str, Any]] = [
    {"step": 10, "epoch": 1.0, "split": "train", "time": 1.0, "loss": 1.5},
    {"step": 10, "epoch": 1.0, "split": "val", "time": 1.0, "loss": 1.25, "top1": 0.75},
    {"step": 20, "epoch": 2.0, "split": "train", "time": 2.0, "loss": 0.5, "lr": 1e-3},
    {"step": 20, "epoch": 2.0, "split": "val", "time": 2.0, "loss": None, "top1": 0.5},
]


def page(records: list[dict[str, Any]] = RECORDS, **changes: Any) -> str:
    """Returns the page of a run in /my runs/experiment_0007 whose files hold what stands above, and ``changes``."""
    with tempfile.TemporaryDirectory() as place:
        run_dir = RunDir(Path(place) / "my runs" / "experiment_0007")
        run_dir.path.mkdir(parents=True)
        run_dir.config.write_text(json.dumps(CONFIG))
        run_dir.status.write_text(json.dumps({**STATUS, "updated": time.time(), **changes}))
        run_dir.environment.write_text(json.dumps({**START, "restarts": [START]}))
        run_dir.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
        write_readme(run_dir, "classification")
        return run_dir.readme.read_text().replace(place, "")


def test_it_tells_what_ran_when_where_and_how_to_go_on() -> None:
    text = page()
    assert text.startswith("# experiment_0007: first \\| try\n")
    assert "state **running**, epoch 2 of 3, step 20" in text
    assert "| `optimizer.lr` | `0.001` |" in text
    assert "training.steps" not in text, "unset values are left out"
    assert "> To see\n> whether it works." in text
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(1e9))
    assert text.count(f"| {when} | n0, n1 | 2 x Card | 812 | 0123456789 with changes |") == 2
    assert "python -m classification.train --config a.yaml" in text
    assert "\nsrun python -m classification.train --resume '/my runs/experiment_0007'\n" in text
    assert "python -m classification.evaluate --experiment '/my runs/experiment_0007'\n" in text
    assert "tensorboard --logdir '/my runs/experiment_0007'\n" in text


def test_results_stand_beside_each_other() -> None:
    text = page()
    assert "|  | best, epoch 1 | last train, epoch 2 | last val, epoch 2 |" in text
    assert "| loss | 1.25 | 0.5 |  |" in text
    assert "| top1 | 0.75 |  | 0.5 |" in text
    assert "| lr |  | 0.001 |  |" in text


def test_evaluations_from_outside_have_their_own_column() -> None:
    outside = {"step": 10, "epoch": 1.0, "split": "val", "top1": 0.8, "source": "evaluate", "checkpoint": "best.pt"}
    text = page([*RECORDS, outside])
    assert "| best, epoch 1 | last train, epoch 2 | last val, epoch 2 | evaluate val (best.pt), epoch 1 |" in text
    assert "| top1 | 0.75 |  | 0.5 | 0.8 |" in text


def test_a_run_that_has_just_begun_says_so() -> None:
    assert "Nothing measured yet." in page(records=[], best={}, step=0, epoch=0.0)
    assert "state **queued**" in page(records=[], state="queued")


def test_it_is_written_from_the_files_of_the_folder(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "experiment_0001")
    run_dir.path.mkdir()
    run_dir.config.write_text("model: {name: swin_tiny}\ntraining: {epochs: 2}\n")
    write_readme(run_dir, "classification")
    assert "| `model.name` | `swin_tiny` |" in run_dir.readme.read_text()
    run_dir.metrics.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    run_dir.status.write_text(json.dumps({**STATUS, "state": "finished"}))
    write_readme(run_dir, "classification")
    assert "state **finished**" in run_dir.readme.read_text()
    assert "| top1 | 0.75 |  | 0.5 |" in run_dir.readme.read_text()
