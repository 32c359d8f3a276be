"""With several ranks one of them looks for images, and reads checkpoints and weights, for all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from classification import task as task_module
from classification.model.build import build_model
from classification.spec import SPEC
from classification.task import ClassificationTask
from engine.config.load import load_config
from engine.distributed.ranks import Ranks
from tests.classification.small import EVALUATE, TRAIN, folder_data, write_config, write_images
from tests.distributed import run_ranks
from tests.second_rank import check_second_rank

PREDICT = [EVALUATE[0], "-m", "classification.predict"]


@pytest.mark.parametrize(
    "then", ["resume", *(pytest.param(name, marks=pytest.mark.full) for name in ("evaluate", "predict"))]
)
def test_the_second_rank_opens_images_and_nothing_else(tmp_path: Path, then: str) -> None:
    root = tmp_path / "images"
    write_images(root / "train", {"a": 20, "b": 20})
    write_images(root / "val", {"a": 8, "b": 8}, seed=1)
    weights = tmp_path / "start.pt"
    config = write_config(tmp_path, data=folder_data(root), evaluation={"batch_size": 4})
    loaded = load_config(SPEC.schema(), config)
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
    check_second_rank(commands, tmp_path, root)


def opened(ranks: Ranks, config: str) -> list[str]:
    """Splits that this rank has opened by itself, when all three were used."""
    splits, open_images = [], task_module.open_images
    task_module.open_images = lambda data, split: splits.append(split) or open_images(data, split)
    task = ClassificationTask(load_config(SPEC.schema(), Path(config)), ranks)
    with torch.inference_mode():
        task.evaluate(task.model.eval(), "test", ranks)
    return splits


def test_the_second_rank_opens_no_split(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        write_images(tmp_path / split, {"a": 4, "b": 4}, seed)
    config = write_config(tmp_path, data=folder_data(tmp_path))
    assert run_ranks(2, opened, str(config)) == [["train", "val", "test"], []]
