"""Wrong input to detection: one clear message, exit code 2, no traceback, nothing left behind."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detection.spec import SPEC
from engine.commands.arguments import TrainArguments
from engine.commands.entry import exit_code
from engine.commands.train import run_training
from engine.process.signals import StopRequest
from tests.detection.coco_files import CATEGORIES, box, write_split
from tests.detection.small import write_config

FILES = {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")}


def refused(config: Path, *overrides: str, dry_run: bool = False) -> str:
    """The message that a start with this input ends with."""
    before = sorted(config.parent.rglob("*"))
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        code = exit_code(lambda: run_training(SPEC, TrainArguments(config, None, dry_run, overrides), StopRequest()))
    message = error.getvalue()
    assert code == 2 and "Traceback" not in message, message
    assert sorted(config.parent.rglob("*")) == before, "something was left behind"
    return message


def coco_config(folder: Path, **changes: Any) -> Path:
    """A configuration for data below ``folder``, which are right so far."""
    boxes = [box(1, 101, [2, 2, 10, 10]), box(2, 102, [5, 5, 20, 20], category=90)]
    for split in ("train", "val"):
        write_split(folder, split, boxes)
    data = {"source": "coco", "root": str(folder), "workers": 0, "image_size": 48, **FILES, **changes}
    return write_config(folder, data=data, training={"global_batch_size": 2})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train.annotations=trian.json", r"data.train.annotations: there is no file .*/trian.json"),
        ("data.val.images=valid", r"data.val.images: there is no folder .*/valid"),
        ("data.root=nowhere", r"data.train.images: there is no folder .*/nowhere/train"),
        ("detection.backbone=resnet50_c", r"detection.backbone: no model 'resnet50_c'; did you mean 'resnet50_"),
        ("detection.backbone=timm/resnet5", r"detection.backbone: no model 'timm/resnet5'; did you mean 'timm/resnet"),
        ("detection.neck=fpm", r"detection.neck: .*'fpn'"),
        ("model.name=swin_tiny", r"command line: model: this task has no such section: use python -m classification.…"),
        (
            "detection.priors.scales=[0.1, 0.2]",
            r"detection.priors.scales: must be a list of 6 values, not of 2",
        ),
        ("detection.priors.scales=[-1, 0.2, 0.3, 0.4, 0.5, 0.6]", r"scales\[0\]: must be a number > 0, not -1\n$"),
        ("data.image_size=[96, 128, 3]", r"data.image_size: must be .* or a list of 2 values, not of 3"),
        ("detection.postprocess.candidates=9", r"postprocess.candidates: must be at least `detections` \(200\), not 9"),
        ("detection.bakcbone=swin_a", r"detection.bakcbone: unknown key; did you mean 'backbone'"),
        (
            "loss.focal_gamma=1.5",
            r"loss.focal_gamma: cross_entropy has no such key; it is focal's",
        ),
        (
            "detection={neck_channels: 64}",
            r"neck_channels: has an effect only with neck: fpn, pan or dense_fpn",
        ),
        ("detection={neck_norm: layer}", r"detection.neck_norm: has an effect only with neck: fpn"),
        (
            "detection={backbone: swin_a, frozen_batchnorm: true}",
            r"detection.frozen_batchnorm: swin_a has no such key; it is resnet50_a's, ",
        ),
        ("loss={negatives_per_positive: 1, min_negatives: 1, classification: focal}", r"min_negatives: focal has no"),
        ("evaluation.metric=mAP", r"evaluation.metric: 'mAP' is not measured; there are AP, AP50"),
        ("training.global_batch_size=64", r"training.global_batch_size: 64 is more than the 3 training samples"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, override: str, message: str) -> None:
    error = refused(coco_config(tmp_path), override)
    assert re.search(message, error), error


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("root", ["/proc/runs", "train.json", "train.json/runs"])
def test_a_place_that_a_run_cannot_have_is_refused_by_a_dry_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, dry_run: bool
) -> None:
    config = coco_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "error: experiment.root: " in refused(config, f"experiment.root={root}", dry_run=dry_run)


def test_categories_that_differ_are_named(tmp_path: Path) -> None:
    config = coco_config(tmp_path)
    write_split(tmp_path, "val", [], categories=[*CATEGORIES[:2], {"id": 91, "name": "owl"}])
    error = refused(config)
    assert "val.json: 2 categories differ from train's: 90: 'owl' in train, None here" in error


def test_images_that_are_not_as_annotated_are_named(tmp_path: Path) -> None:
    config = coco_config(tmp_path)
    Image.new("RGB", (30, 40)).save(tmp_path / "train" / "1.png")
    (tmp_path / "val" / "2.png").write_bytes(b"no image")
    error = refused(config)
    assert re.search(r"train: 1 images whose width and height .* \(ids: 102\)", error), error
    assert re.search(r"val: 1 files that cannot be used as images; the first: .* \(ids: 103\)", error), error


def test_images_that_lie_on_their_side_are_named(tmp_path: Path) -> None:
    """Their pixels have the size of their annotations, but not once they are turned upright."""
    config = coco_config(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    for split, ending in (("train", "jpeg"), ("val", "png")):
        Image.new("RGB", (40, 30)).save(tmp_path / split / "1.png", format=ending, exif=exif)
    error = refused(config)
    for split in ("train", "val"):
        assert re.search(rf"{split}: 1 images whose width and height .* \(ids: 102\)", error), error


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    config = coco_config(tmp_path)
    write_split(tmp_path, "train", [box(1, "101", [2, 2, 10, 10])])  # a text, where the image's id is a number
    assert "train.json: there is no object to learn from" in refused(config)


def test_batch_norm_that_is_not_there_cannot_be_frozen(tmp_path: Path) -> None:
    config = coco_config(tmp_path)
    overrides = ["detection.backbone=timm/test_convnext", "detection.frozen_batchnorm=true", "finetune.weights=x.pt"]
    assert "detection.frozen_batchnorm: timm/test_convnext has no batch norm" in refused(config, *overrides)
