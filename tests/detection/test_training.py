"""Whole runs of detection: what they leave behind, evaluation, prediction, and a resume that changes no bit."""

from __future__ import annotations

import csv
import json
import signal
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from detection.data.synthetic_shapes import ShapeImages
from detection.prediction import DrawnPrediction
from detection.spec import SPEC
from engine.commands.arguments import EvaluateArguments, TrainArguments
from engine.commands.evaluate import run_evaluation
from engine.commands.train import run_training
from engine.errors import UserError
from engine.process.signals import StopRequest
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from tests.detection.coco_files import box, write_split
from tests.detection.small import EVALUATE, PREDICT, SHAPES, SWIN_SHAPE, TRAIN, config_of, write_config
from tests.distributed import Group, launch
from tools.chaos.compare import checkpoint_differences, records_difference


def succeed(world_size: int, command: list[str], cwd: Path, new_interpreter: bool = False) -> str:
    ended = launch(world_size, command, cwd=cwd, new_interpreter=new_interpreter)
    assert [end.returncode for end in ended] == [0] * world_size, ended[0].output
    return ended[0].output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs on two ranks."""
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder, training={"steps": None, "epochs": 2, "ema": {}})
    succeed(2, [*TRAIN, "--config", str(config)], folder)
    return folder / "experiments" / "experiment_0001"


def test_a_run_leaves_what_is_promised(finished: Path) -> None:
    assert json.loads((finished / "status.json").read_text())["state"] == "finished"
    assert (finished / "results" / "train_samples.png").is_file()
    (*_, record) = read_metrics(finished / "metrics.jsonl", "val")
    assert {"AP", "AP50", "AP75", "AP_small", "AR_100", "AR_large"} <= set(record)
    saved = torch.load(finished / "checkpoints" / "last.pt", weights_only=True)
    assert saved["metadata"]["classes"] == ["circle", "square"] and saved["metadata"]["category_ids"] == [1, 2]
    assert {"loss", "loss_classes", "loss_boxes"} <= set(read_metrics(finished / "metrics.jsonl", "train")[0])


@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluate_repeats_what_training_measured(finished: Path, world_size: int) -> None:
    command = [*EVALUATE, "--experiment", str(finished), "--checkpoint", "last"]
    succeed(world_size, command, finished, new_interpreter=world_size == 1)
    measured = read_metrics(finished / "metrics.jsonl", "val")
    during = next(record for record in measured if record["step"] == 6 and "source" not in record)
    after = measured[-1]
    assert (after["source"], after["checkpoint"]) == ("evaluate", "last.pt")
    results = finished / "results" / "val"
    metrics = json.loads((results / "metrics.json").read_text())
    assert len(metrics) == 12 and metrics == {name: during[name] for name in metrics}
    assert metrics == {name: after[name] for name in metrics}
    assert {path.name for path in results.iterdir()} >= {
        "report.md", "per_class.csv", "precision_recall.png", "confusion_matrix.csv", "confusion_matrix.png",
        "detections.json",
    }  # fmt: skip
    detections = json.loads((results / "detections.json").read_text())
    assert {row["category_id"] for row in detections} <= {1, 2}
    assert {row["image_id"] for row in detections} <= set(range(1, 11))
    assert [row["class"] for row in csv.DictReader((results / "per_class.csv").open())] == ["circle", "square"]


def test_evaluate_takes_settings_of_its_own_and_refuses_others(finished: Path) -> None:
    command = [*EVALUATE, "--experiment", str(finished), "detection.postprocess.score_threshold=0.9"]
    succeed(1, command, finished)
    made_from = json.loads((finished / "results" / "val" / "made_from.json").read_text())
    assert made_from["changes"] == ["detection.postprocess.score_threshold=0.9"]
    (ended,) = launch(1, [*command, "detection.neck=pan"], cwd=finished)
    assert ended.returncode == 2 and "detection.neck: cannot matter for a trained model" in ended.output
    (ended,) = launch(1, [*EVALUATE, "--experiment", str(finished), "data.classes=[square, circle]"], cwd=finished)
    assert ended.returncode == 2
    assert "was trained on other categories: 1: 'circle' there, 'square' here" in ended.output


def test_predict_writes_coco_and_drawings_and_leaves_broken_images_out(finished: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "images", tmp_path / "found"
    (folder / "below").mkdir(parents=True)
    shapes = ShapeImages(config_of().data, "val")  # type: ignore[arg-type]
    long = f"below/{'a' * 250}.JPG"
    for index, name in enumerate(["b.png", long, "single"]):
        shapes.image(index).pillow().save(folder / name, format="png")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    (folder / "z.jpg").symlink_to("gone.jpg")
    command = [*PREDICT, "--experiment", str(finished), "--images", str(folder), str(folder / "single")]
    printed = succeed(1, [*command, "--output", str(output), "data.workers=1"], tmp_path, new_interpreter=True)
    assert "images cannot be read; unreadable.csv has all" in printed
    assert "broken.jpg: cannot be read" in (output / "unreadable.csv").read_text()
    assert "left out: " in printed and "broken.jpg: cannot be read as an image" in printed
    assert "z.jpg: no such image" in printed and "1 images left out for their endings (1 x no ending)" in printed
    assert "1 files that are no images left out for their endings (1 x .txt)" in printed
    coco = COCO(str(output / "detections.json"))
    assert [image["file_name"] for image in coco.dataset["images"]] == [
        str(folder / name) for name in ("b.png", long, "single")
    ]
    assert [image["id"] for image in coco.dataset["images"]] == [1, 2, 5]
    assert coco.dataset["categories"] == [{"id": 1, "name": "circle"}, {"id": 2, "name": "square"}]
    assert coco.dataset["annotations"], "an untrained model finds something everywhere"
    for found in coco.dataset["annotations"]:
        x, y, width, height = found["bbox"]
        assert 0 <= x <= x + width <= 56.001 and 0 <= y <= y + height <= 48.001 and 0 < found["score"] < 1
    drawn = sorted(path.name for path in (output / "images").iterdir())
    assert drawn == ["00001_b.png", f"00002_{'a' * 40}.png", "00005_single.png"]
    assert np.array(Image.open(output / "images" / drawn[0])).shape == (48, 56, 3)
    (ended,) = launch(1, [*command, "--output", str(output)], cwd=tmp_path)
    assert ended.returncode == 2
    assert f"--output: {output}/detections.json is there already; remove it or name another folder" in ended.output
    (output / "detections.json").rename(tmp_path / "detections.json")
    with pytest.raises(UserError, match=f"--output: {output}/images is there already"):
        DrawnPrediction(Namespace(output=output)).check_output([])
    again = succeed(2, [*command, "--output", str(tmp_path / "again")], tmp_path)
    assert "left out: " in again
    assert (tmp_path / "again" / "detections.json").read_text() == (tmp_path / "detections.json").read_text()
    command = [*PREDICT, "--experiment", str(finished), "--output", str(tmp_path / "none"), "--images"]
    (ended,) = launch(1, [*command, str(folder / "broken.jpg"), "detection.postprocess.score_threshold=0.5"])
    assert ended.returncode == 2 and "none of the 1 images can be read; the first: " in ended.output
    assert not (tmp_path / "none" / "detections.json").exists()
    (ended,) = launch(1, [*PREDICT, "--experiment", str(finished), "--images", "gone.png", "--output", "x"])
    assert ended.returncode == 2 and "--images: there is no file or folder gone.png" in ended.output


def test_a_run_that_was_stopped_and_killed_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Stopped by SIGTERM and killed by SIGKILL, with a worker, mosaic, dropped paths and a moving average."""
    sections = {
        "detection": {"backbone": "swin_b", "neck_channels": 8, "swin": SWIN_SHAPE, "drop_path": 0.2},
        "data": {**SHAPES, "workers": 1},
        "augmentation": {"mosaic": {}},
        "training": {"steps": 18, "ema": {}, "accumulation": 2},
        "evaluation": {"every_steps": 18},
        "checkpoint": {"every_steps": 4},
    }
    config = write_config(tmp_path, **sections)
    succeed(1, [*TRAIN, "--config", str(config)], tmp_path, new_interpreter=True)
    reference, run = (RunDir(tmp_path / "experiments" / f"experiment_000{number}") for number in (1, 2))
    command = [*TRAIN, "--config", str(config)]
    for number, code in ((signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)):
        before = len(read_metrics(run.metrics)) if run.metrics.exists() else 0
        with Group(1, command, cwd=tmp_path) as group:
            while not (run.metrics.exists() and len(read_metrics(run.metrics)) > before):
                assert group.processes[0].poll() is None, group.output(0)
                time.sleep(0.01)
            group.processes[0].send_signal(number)
            (ended,) = group.wait(60)
        assert ended.returncode == code, ended.output
        assert json.loads(run.status.read_text())["step"] < 18
        command = [*TRAIN, "--resume", str(run.path)]
    succeed(1, command, tmp_path)
    differences = checkpoint_differences(reference, run)
    assert not {name: fault for name, fault in differences.items() if fault}
    for split in ("train", "val"):
        assert records_difference(reference.metrics, run.metrics, split) is None


def test_data_that_changed_under_a_run_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    boxes = [box(1, 101, [2, 2, 20, 20]), box(2, 102, [5, 5, 20, 20]), box(3, 103, [4, 3, 18, 20])]
    for split in ("train", "val"):
        write_split(tmp_path, split, boxes)
    files = {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")}
    data = {"source": "coco", "root": str(tmp_path), "workers": 0, "image_size": 48, **files}
    config = write_config(tmp_path, data=data, training={"steps": 1, "global_batch_size": 2})
    assert run_training(SPEC, TrainArguments(config, None, False, ()), StopRequest()) == 0
    folder = tmp_path / "experiments" / "experiment_0001"
    evaluation = EvaluateArguments(folder, "last", "val", [])
    resume = TrainArguments(None, str(folder), False, ("training.steps=2",))
    told = "images or annotations of val are not those that training had"
    assert run_evaluation(SPEC, evaluation) == 0 and told not in caplog.text
    write_split(tmp_path, "val", [*boxes[:2], box(3, 103, [4, 3, 18, 21])])
    assert run_evaluation(SPEC, evaluation) == 0 and caplog.text.count(told) == 1
    assert run_training(SPEC, resume, StopRequest()) == 0
    assert "the data have changed since the checkpoint: digest_of_annotations.val: " in caplog.text
    assert "digest_of_annotations.train" not in caplog.text
