"""``python -m tools.check``: what is there, what is wrong by its ids, and the exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from tests.classification.small import folder_data, write_config, write_images
from tests.detection.coco_files import box, write_split
from tools.check.__main__ import main

QUICK = ("--quick", "--no-login-node")


@pytest.fixture
def detection(tmp_path: Path) -> list[str]:
    """The command for a COCO data set in ``tmp_path``."""
    files = {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")}
    path = tmp_path / "run.yaml"
    data = {"source": "coco", "root": str(tmp_path), **files}
    path.write_text(yaml.safe_dump({"data": data, "training": {"global_batch_size": 3}}))
    return [*QUICK, "--task", "detection", "--config", str(path)]


def test_good_data_are_counted(tmp_path, detection, capsys):
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(1, 101, [1, 2, 10, 20]), box(2, 102, [1, 2, 10, 20], iscrowd=1)])
    assert main(detection) == 0
    counts = "3 images (1 without objects), 1 objects of 3 classes, 1 crowd regions"
    unseen = f"{tmp_path}/train.json: 2 categories of which there is no object to learn from (ids: 7, 90)"
    said = capsys.readouterr().out.splitlines()
    assert said[2:5] == [f"data: train: {counts}", f"data: val: {counts}", f"warning: {unseen}"]
    assert said[5].startswith("data: train by class: ") and " 1, " in said[5]
    assert said[-1] == "verdict: nothing found that would stop the run; 1 warning and 5 things not checked"


def test_all_ids_are_named(tmp_path, detection, capsys):
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(1, 101, [1, 2, 10, 20]), *(box(n, 101, [1, 1, 0, 1]) for n in range(2, 52))])
    assert main(detection) == 0
    assert (
        f"50 boxes without width or height; left out (ids: {', '.join(map(str, range(2, 52)))})"
        in capsys.readouterr().out
    )


def test_everything_that_is_wrong_is_listed_by_its_ids(tmp_path, detection, capsys):
    bad = [
        box(11, 101, [3, 3, 0, 4]),
        box(12, 102, [3, 3, 4, -1]),
        box(13, 101, [float("nan"), 3, 4, 4]),
        box(14, 101, [50, 3, 4, 4]),
        box(15, 101, [30, 3, 20, 4]),
        box(16, 999, [1, 1, 4, 4]),
        box(17, 101, [1, 1, 4, 4], 3),
        box(18, 101, [1, 1, 4, 4]),
        box(18, 101, [1, 1, 4, 4]),
    ]
    write_split(tmp_path, "train", bad)
    write_split(tmp_path, "val", [], categories=[{"id": 2, "name": "lynx"}])
    document = json.loads((tmp_path / "train.json").read_text())
    document["images"].append({"id": 777, "file_name": "gone.png", "width": 40, "height": 30})
    document["images"][1]["width"] = 39
    (tmp_path / "train.json").write_text(json.dumps(document))
    (tmp_path / "train" / "2.png").write_bytes(b"no image")
    assert main(detection) == 2
    out, err = capsys.readouterr()
    for text in (
        "2 boxes without width or height; left out (ids: 11, 12)",
        "1 boxes with NaN or infinity; left out (ids: 13)",
        "1 boxes that lie outside their image; left out (ids: 14)",
        "1 boxes that reach out of their image; clipped in training (ids: 15)",
        "1 boxes of images that are not listed (999); left out (ids: 16)",
        "1 annotation ids that occur more than once; all of their boxes are used (ids: 18)",
    ):
        assert f"warning: {tmp_path}/train.json: {text}" in out
    for text in (
        "train.json: 1 boxes of categories that are not listed (3) (ids: 17)",
        f"train.json: 1 images that are not in {tmp_path}/train, such as gone.png (ids: 777)",
        "train: 1 files that cannot be used as images; the first: ",
        "train: 1 images whose width and height are not those of their annotations (ids: 102)",
        "val.json: 3 categories differ from train's: 2: 'cat' in train, 'lynx' here",
    ):
        assert f"error: {tmp_path}/{text}" in err


def test_data_that_are_not_there(tmp_path, detection, capsys):
    assert main(detection) == 2
    errors = capsys.readouterr().err
    for split in ("train", "val"):
        assert f"error: data.{split}.images: there is no folder {tmp_path}/{split}" in errors


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", "optimizer.lrr: unknown key"),
        ("evaluation.metric=mAP", "evaluation.metric: 'mAP' is not measured; there are AP, AP50"),
        ("evaluation.mode=min", "evaluation.mode: min is wrong for 'AP'"),
        ("detection.frozen_batchnorm=true", "detection.frozen_batchnorm: keeps the batch norms of trained weights"),
        ("distributed={sync_batchnorm: true, device: cpu}", "distributed.sync_batchnorm: has an effect only with"),
    ],
)
def test_a_mistake_in_the_configuration(detection, capsys, override, message):
    assert main([*detection, override]) == 2
    assert f"error: command line: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.weights=gone.pt", "finetune.weights: no file "),
        ("finetune.weights=.", "is a folder, but no experiment with a checkpoint"),
        ("experiment.root=/proc/runs", "experiment.root: /proc cannot be written"),
        ("training.global_batch_size=4", "training.global_batch_size: 4 is more than the 3 training samples"),
    ],
)
def test_what_a_start_refuses_is_an_error(tmp_path, detection, capsys, monkeypatch, override, message):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(1, 101, [1, 2, 10, 20])])
    assert main([*detection, override]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and message in err and err.count("error: ") == 1
    assert "run.yaml: keys and types are right" in out and "data: train: 3 images" in out
    assert out.endswith("verdict: training would refuse to start, or end before its time\n")


@pytest.mark.parametrize(
    "override", ["training.global_batch_size=4", "finetune.weights=run.yaml", "finetune.weights=timm"]
)
def test_a_batch_may_be_larger_if_the_rest_is_kept_and_weights_may_be_any_file_or_timms(
    tmp_path, detection, monkeypatch, override
):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(1, 101, [1, 2, 10, 20])])
    assert main([*detection, override, "detection.backbone=resnet50_a", "data.drop_last=false"]) == 0


def test_a_batch_is_not_measured_against_faulty_images(tmp_path, detection, capsys):
    images = [{"id": 101, "file_name": "0.png", "width": "40", "height": 30}]
    write_split(tmp_path, "train", [], images=images)
    write_split(tmp_path, "val", [box(1, 101, [1, 2, 10, 20])])
    assert main(detection) == 2
    assert capsys.readouterr().err.count("error: ") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("override", ["distributed.sync_batchnorm=true", "distributed.device=cuda"])
def test_a_gpu_that_is_not_here_is_an_error_but_on_a_login_node(tmp_path, detection, capsys, override):
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(1, 101, [1, 2, 10, 20])])
    assert main([*detection, override]) == 2
    assert re.search(r"^error: distributed\..* --login-node", capsys.readouterr().err, re.MULTILINE)
    assert main([*detection, "--login-node", override]) == 0
    assert "warning: on this machine: distributed." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.metric=AP", "evaluation.metric: 'AP' is not measured; there are loss, top1"),
        ("evaluation.mode=min", "evaluation.mode: min is wrong for 'top1'"),
        ("training.global_batch_size=1438", "1438 is more than the 1437 training samples"),
        ("finetune.weights=gone.pt", "finetune.weights: no file "),
    ],
)
def test_what_a_start_of_classification_refuses_is_an_error(tmp_path, capsys, override, message):
    assert main([*QUICK, "--task", "classification", "--config", str(write_config(tmp_path)), override]) == 2
    assert message in capsys.readouterr().err


def test_top5_of_two_classes_is_refused(tmp_path, capsys):
    for split in ("train", "val"):
        write_images(tmp_path / split, {"ant": 20, "bee": 20})
    config = write_config(tmp_path, data=folder_data(tmp_path))
    assert main([*QUICK, "--task", "classification", "--config", str(config), "evaluation.metric=top5"]) == 2
    assert "evaluation.metric: top5 is always 1 with 2 classes" in capsys.readouterr().err


def test_classification_is_counted_too(tmp_path, capsys):
    assert main([*QUICK, "--task", "classification", "--config", str(write_config(tmp_path))]) == 0
    assert "data: train: 1437 images of 10 classes" in capsys.readouterr().out


def test_files_that_are_no_images_are_named_in_both_splits(tmp_path, capsys):
    for split in ("train", "val"):
        write_images(tmp_path / split, {"ant": 2, "bee": 2})
    (tmp_path / "train" / "ant" / "empty.png").write_bytes(b"")
    (tmp_path / "val" / "bee" / "text.png").write_text("no image")
    config = write_config(tmp_path, data=folder_data(tmp_path))
    assert main([*QUICK, "--task", "classification", "--config", str(config)]) == 2
    errors = capsys.readouterr().err
    assert f"error: {tmp_path}/train/ant/empty.png: cannot be read as an image" in errors
    assert f"error: {tmp_path}/val/bee/text.png: cannot be read as an image" in errors


def test_what_training_warns_of_is_said_here_too(tmp_path, capsys):
    write_images(tmp_path / "train", {"ant": 4, "Ant": 4})
    (tmp_path / "val").symlink_to("train")
    (tmp_path / "train" / "ant" / "000.jpg").rename(tmp_path / "train" / "ant" / "000.jfif")
    config = write_config(tmp_path, data=folder_data(tmp_path), training={"global_batch_size": 4})
    assert main([*QUICK, "--task", "classification", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    for text in (
        f"{tmp_path}/train: 1 images left out for their endings (1 x .jfif)",
        "data: 2 classes look like others and are not the same: 'Ant' (4 training images",
        "data: 7 of 7 images of val are in train as well, with the same content",
    ):
        assert f"warning: {text}" in out


def test_settings_that_are_seldom_meant_are_questioned(tmp_path, detection, capsys):
    boxes = [box(n, 100 + n, [1, 2, 10, 20], kind) for n, kind in enumerate((2, 7, 90), 1)]
    for split in ("train", "val"):
        write_split(tmp_path, split, boxes)
    assert main([*detection, "loss.box_weight=0", "detection.postprocess.detections=50"]) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(warnings) == 2
    assert warnings[0].startswith("warning: loss.box_weight: 0: ")
    assert warnings[1].startswith("warning: detection.postprocess.detections: 50: COCO's figures count the best 100")
