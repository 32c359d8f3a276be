"""Runs of Keras's models: killed and resumed to the same bits, from Keras's weights, to .keras and back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classification.model.build import build_model
from classification.model.sections import KerasModel
from engine.config.training import FinetuneConfig
from engine.errors import UserError
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from tests.classification.small import TRAIN, write_config
from tests.distributed import Group, launch
from tests.engine.keras_models.random_keras import import_keras
from tests.engine.keras_models.random_keras import ours as logits
from tests.tools.export.exports import arrays, expected, exportable
from tools.chaos.compare import checkpoint_differences, records_difference
from tools.export.__main__ import main as export

SMALL = {
    "model": {"name": "keras/EfficientNetB0", "drop_rate": 0.2, "drop_path": 0.2},
    "data": {"source": "digits", "image_size": 16, "workers": 0},
    "training": {"steps": 10, "global_batch_size": 4, "ema": {"decay": 0.9}},
    "optimizer": {"lr": 1e-3},
    "finetune": {"unfreeze": {"0": "head", "0.003": ["stage_7", "stage_6"], "0.011": "all"}},
    "evaluation": {"batch_size": 360},
    "checkpoint": {"every_steps": 2},
    "logging": {"every_steps": 1},
}
"""For 359 steps an epoch: phases begin with steps 0, 1 and 4."""


def whole_and_killed(folder: Path, sections: Mapping[str, Any], kills: tuple[int, ...]) -> tuple[RunDir, RunDir]:
    """A run to its end, and another that was killed soon after each of these steps and resumed."""
    command = [*TRAIN, "--config", str(write_config(folder, **sections))]
    whole, killed = (RunDir(folder / "experiments" / f"experiment_000{number}") for number in (1, 2))
    succeed(command, folder)
    for step in kills:
        with Group(1, command, cwd=folder) as group:
            while last_step(killed) < step or not (killed.checkpoints / "last.pt").exists():
                assert group.processes[0].poll() is None, group.output(0)
                time.sleep(0.005)
        command = [*TRAIN, "--resume", str(killed.path)]
    reached = last_step(killed)
    assert max(kills) <= reached < last_step(whole), "it ended before it was killed"
    assert "resumed from " in succeed(command, folder)
    return whole, killed


def succeed(command: list[str], folder: Path) -> str:
    (ended,) = launch(1, command, cwd=folder, timeout=3000)
    assert ended.returncode == 0, ended.output
    return ended.output


def last_step(run: RunDir) -> int:
    """The last step with a record; 0 where there is none yet, or the last line is being written."""
    try:
        return max((int(record["step"]) for record in read_metrics(run.metrics, "train")), default=0)
    except (FileNotFoundError, UserError):
        return 0


def assert_same_bits(whole: RunDir, killed: RunDir) -> None:
    differences = checkpoint_differences(whole, killed)
    assert {"model", "ema", "optimizer", "run"} <= differences.keys()
    assert not {name: fault for name, fault in differences.items() if fault}
    for split in ("train", "val"):
        assert records_difference(whole.metrics, killed.metrics, split) is None


def test_a_run_of_a_keras_model_that_was_killed_ends_in_the_same_bits(tmp_path: Path) -> None:
    """With batch norm, dropout, stochastic depth, a moving average, and stages that are unfrozen meanwhile."""
    assert_same_bits(*whole_and_killed(tmp_path, SMALL, (3,)))


@pytest.mark.full
def test_a_fine_tuned_efficientnet_is_resumed_to_the_same_bits_and_goes_to_keras_and_back(
    shared_data: Path, tmp_path: Path
) -> None:
    """An epoch of photographs of clothes at 96 pixels, from a file of Keras's, killed in each of its two phases."""
    name = "keras/EfficientNetB0"
    applications, shape = import_keras().applications, (96, 96, 3)
    applications.EfficientNetB0(weights=None, classes=10, input_shape=shape).save(tmp_path / "start.h5")
    sections = {
        "model": {"name": name, "drop_rate": 0.2, "drop_path": 0.2},
        "data": {
            "source": "folder",
            "root": str(shared_data / "clothing"),
            "image_size": 96,
            "workers": 1,
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
        },
        "augmentation": {"horizontal_flip": 0.5, "shift": 4},
        "training": {"steps": None, "epochs": 1, "global_batch_size": 32, "ema": {"decay": 0.9}},
        "finetune": {"weights": str(tmp_path / "start.h5"), "unfreeze": {"0": "head", "0.4": "all"}},
        "checkpoint": {"every_steps": 5},
        "logging": {"every_steps": 1},
    }
    whole, killed = whole_and_killed(tmp_path, sections, (20, 60))
    assert_same_bits(whole, killed)
    assert last_step(whole) == 95

    file = tmp_path / "back.keras"
    assert export(["--experiment", str(killed.path), "--format", "keras", "--output", str(file)]) == 0
    ours = exportable(killed.path, "keras")
    (pictures,) = arrays(ours, 16)
    said = expected(ours, pictures)["logits"]
    theirs = import_keras().models.load_model(file, compile=False)
    found = theirs(pictures.transpose(0, 2, 3, 1).astype(np.float32), training=False).detach().numpy()
    assert (np.abs(found - said) <= 1e-4 * np.maximum(1, np.abs(said))).all() and said.std() > 0.01
    classes = ours.description["classes"]
    back = build_model(KerasModel(name=name), FinetuneConfig(weights=file), 10, (96, 96), classes).eval()  # type: ignore[arg-type]
    assert np.array_equal(*(logits(network, name, pictures.transpose(0, 2, 3, 1)) for network in (back, ours.network)))
