"""The sections of a detection run's configuration: quick to load, and wrong values are explained."""

from __future__ import annotations

import subprocess
import sys

import pytest

from detection.augmentation_config import AugmentationConfig
from detection.config import DetectionConfig
from detection.data_config import DataConfig
from detection.loss_config import LossConfig, MatchingConfig, PostprocessConfig
from engine.config import Section, dump_config, json_schema, load_config
from engine.errors import UserError
from tests.distributed import ROOT


class Run(Section):
    """The sections together."""

    data: DataConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    matching: MatchingConfig = MatchingConfig()
    loss: LossConfig = LossConfig()
    postprocess: PostprocessConfig = PostprocessConfig()


SHAPES = "data: {source: shapes}\n"
COCO = (
    "data: {source: coco, root: /d, train: {images: train, annotations: annotations/instances_train.json}, "
    "val: {images: val, annotations: annotations/instances_val.json}}\n"
)


def load(tmp_path, text: str, *overrides: str) -> Run:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return load_config(Run, path, overrides)


@pytest.mark.parametrize("text", [SHAPES, COCO])
def test_sections_are_read_back_as_they_were_written(tmp_path, text):
    config = load(tmp_path, text, "data.image_size=[320,512]", "augmentation.mosaic={probability: 0.2}")
    assert config.data.size == (320, 512)
    assert load(tmp_path, dump_config(config)) == config


def test_the_command_line_may_turn_off_what_the_file_goes_into(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(SHAPES + "detection: {neck: fpn, neck_channels: 64, pretrained: true, frozen_batchnorm: true}\n")
    assert load_config(DetectionConfig, path).detection.neck_channels == 64
    found = load_config(DetectionConfig, path, ["detection.neck=none", "finetune.weights=a.pth"]).detection
    assert (found.neck_channels, found.pretrained, found.frozen_batchnorm) == (256, False, True)
    swin = load_config(DetectionConfig, path, ["detection.backbone=swin_a", "detection.pretrained=false"]).detection
    assert not swin.frozen_batchnorm
    path.write_text(path.read_text() + "finetune: {weights: a.pth}\n")
    with pytest.raises(UserError, match=r"run\.yaml:2: detection\.pretrained: .* only with finetune\.weights: null"):
        load_config(DetectionConfig, path)


def test_they_have_a_schema():
    document = json_schema(Run, "run")
    assert {"data", "augmentation", "matching", "loss", "postprocess"} <= set(document["properties"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.image_size=0", "data.image_size: must be"),
        ("data.scale=[0.5, 0.1]", "data.scale: the smaller number comes first"),
        ("data.classes=[circel]", "did you mean 'circle'"),
        ("matching.iou=1.5", "matching.iou: must be at most 1"),
        ("loss.boxes=diou", "loss.boxes: must be 'smooth_l1', 'giou' or 'ciou', not 'diou'"),
        ("loss.normalizer=0", "loss.normalizer: must be"),
        ("postprocess.nms_iou=0", "postprocess.nms_iou: must be"),
        ("augmentation.iou_crop.overlaps=[1.0]", "augmentation.iou_crop.overlaps[0]: must be less than 1"),
        ("augmentation.photometric.hue=0.6", "augmentation.photometric.hue: must be"),
        ("augmentation.zoom_out={largest: 0.5}", "augmentation.zoom_out.largest: must be"),
        ("augmentation.mozaic=null", "did you mean 'mosaic'"),
    ],
)
def test_wrong_values_are_explained(tmp_path, override, message):
    with pytest.raises(UserError) as caught:
        load(tmp_path, SHAPES, override)
    assert message in str(caught.value)


def test_they_are_read_without_torch():
    modules = ", ".join(f"detection.{name}_config" for name in ("data", "augmentation", "loss"))
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'torchvision', 'numpy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
