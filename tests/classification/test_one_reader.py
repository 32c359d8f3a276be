"""With several ranks one of them looks for pictures, and reads checkpoints and weights, for all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from classification.model import build_model
from classification.train import schema
from engine.config import load_config
from tests.classification.small import EVALUATE, TRAIN, folder_data, write_config, write_pictures
from tests.distributed import launch
from tests.witness import notes_of, touched, watched

PREDICT = [EVALUATE[0], "-m", "classification.predict"]


@pytest.mark.parametrize(
    "then", ["resume", *(pytest.param(name, marks=pytest.mark.full) for name in ("evaluate", "predict"))]
)
def test_the_second_rank_opens_pictures_and_nothing_else(tmp_path: Path, then: str) -> None:
    root = tmp_path / "pictures"
    write_pictures(root / "train", {"a": 20, "b": 20})
    write_pictures(root / "val", {"a": 8, "b": 8}, seed=1)
    weights = tmp_path / "start.pt"
    config = write_config(tmp_path, data=folder_data(root), evaluation={"batch_size": 4})
    loaded = load_config(schema(), config)
    torch.save(build_model(loaded.model, loaded.finetune, 5, (16, 16)).state_dict(), weights)
    run = str(tmp_path / "experiments" / "experiment_0001")
    images = ["--images", str(root / "val"), "--output", str(tmp_path / "prediction.csv")]
    afterwards = {
        "resume": [*TRAIN, "--resume", run, "training.steps=3"],
        "evaluate": [*EVALUATE, "--experiment", run],
        "predict": [*PREDICT, "--experiment", run, *images],
    }
    start = [*TRAIN, "--config", str(config), f"finetune.weights={weights}", "training.steps=2"]
    commands = {"train": start, then: afterwards[then]}
    for name, command in commands.items():
        notes = tmp_path / "notes" / name
        ended = launch(2, watched(command, notes), cwd=tmp_path)
        assert [end.returncode for end in ended] == [0, 0], ended[0].output + ended[1].output
        assert touched(notes, 1, root) == set(), name
        assert touched(notes, 0, root), name
        opened = [{path for action, path in notes_of(notes, rank) if path.endswith(".jpg")} for rank in (0, 1)]
        assert all(opened), f"{name}: each has its share of the pictures"
