"""With several ranks one of them reads annotations, looks for images, and reads checkpoints and weights, for all."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from detection import task as task_module
from detection.config import DetectionConfig
from detection.task import DetectionTask
from engine.config.load import load_config
from engine.distributed.ranks import Ranks
from tests.detection.coco_files import box, coco_data, write_split
from tests.detection.small import EVALUATE, PREDICT, TRAIN, write_config
from tests.distributed import run_ranks
from tests.second_rank import check_second_rank


@pytest.mark.parametrize(
    "then", ["resume", *(pytest.param(name, marks=pytest.mark.full) for name in ("evaluate", "predict"))]
)
def test_the_second_rank_opens_images_and_nothing_else(tmp_path: Path, then: str) -> None:
    root = tmp_path / "coco"
    for split in ("train", "val"):
        boxes = [box(1 + number, 101 + number, [4, 4, 20, 20]) for number in range(8)]
        write_split(root, split, boxes, count=8)
    weights = tmp_path / "start.pt"
    torch.save(timm.create_model("test_byobnet", num_classes=7).state_dict(), weights)
    data = {**coco_data(root).model_dump(mode="json", exclude_unset=True), "image_size": 48}
    config = write_config(tmp_path, data=data, training={"global_batch_size": 4}, evaluation={"batch_size": 2})
    run = str(tmp_path / "experiments" / "experiment_0001")
    afterwards = {
        "resume": [*TRAIN, "--resume", run, "training.steps=3"],
        "evaluate": [*EVALUATE, "--experiment", run],
        "predict": [*PREDICT, "--experiment", run, "--images", str(root / "val"), "--output", str(tmp_path / "out")],
    }
    start = [*TRAIN, "--config", str(config), f"finetune.weights={weights}", "training.steps=2"]
    commands = {"train": start, then: afterwards[then]}
    check_second_rank(commands, tmp_path, root)


def opened(ranks: Ranks, config: str) -> list[str]:
    """Splits that this rank has opened by itself, when all three were used."""
    splits, open_images = [], task_module.open_images
    task_module.open_images = lambda data, split: splits.append(split) or open_images(data, split)  # type: ignore
    task = DetectionTask(load_config(DetectionConfig, Path(config)), ranks)
    with torch.inference_mode():
        task.evaluate(task.model.eval(), "test", ranks)
    return splits


def test_the_second_rank_opens_no_split(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_split(tmp_path, split, [box(1 + number, 101 + number, [4, 4, 20, 20]) for number in range(8)], count=8)
    test = {"images": "test", "annotations": "test.json"}
    data = {**coco_data(tmp_path, test=test).model_dump(mode="json", exclude_unset=True), "image_size": 48}
    assert run_ranks(2, opened, str(write_config(tmp_path, data=data))) == [["train", "val", "test"], []]
