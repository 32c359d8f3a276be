"""The sections of a detection run's configuration: quick to load, and wrong values are explained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm

from detection.augmentation.sections import AugmentationConfig
from detection.boxes.sections import LossConfig, MatchingConfig, PostprocessConfig
from detection.config import DetectionConfig
from detection.data.sections import DataConfig
from detection.model.sections import SwinDetector, TimmDetector
from engine.config.load import dump_config, load_config
from engine.config.reference import json_schema
from engine.config.section import Section
from engine.errors import UserError
from tests.distributed import ROOT
from tests.sections import section


class Run(Section):
    """The sections together."""

    data: DataConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    matching: MatchingConfig = MatchingConfig()
    loss: LossConfig = section(LossConfig)
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
    path.write_text(
        SHAPES + "detection: {neck: fpn, neck_channels: 64, frozen_batchnorm: true}\nfinetune: {weights: any.pt}\n"
    )
    assert load_config(DetectionConfig, path).detection.neck_channels == 64
    found = load_config(DetectionConfig, path, ["detection.neck=none"]).detection
    assert (found.neck_channels, found.frozen_batchnorm) == (256, True)
    swin = load_config(DetectionConfig, path, ["detection.backbone=swin_a"]).detection
    assert swin == SwinDetector(backbone="swin_a", neck="fpn", neck_channels=64)


def test_frozen_batch_norms_need_trained_weights_to_begin_with(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(SHAPES + "detection:\n  frozen_batchnorm: true\n")
    with pytest.raises(
        UserError, match=r"run.yaml:\d+: detection.frozen_batchnorm: .*; set finetune.weights, or leave"
    ):
        load_config(DetectionConfig, path)
    assert load_config(DetectionConfig, path, trained=True).detection.frozen_batchnorm, "a trained model is so"


def test_weights_that_timm_publishes_are_asked_for_by_a_word(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(SHAPES + "detection: {backbone: resnet50_a}\nfinetune:\n  weights: timm\n")
    config = load_config(DetectionConfig, path)
    assert config.finetune.weights == "timm"
    (tmp_path / "resolved.yaml").write_text(dump_config(config))
    assert load_config(DetectionConfig, tmp_path / "resolved.yaml") == config
    file = load_config(DetectionConfig, path, ["finetune.weights=./timm", "detection.backbone=swin_a"])
    assert file.finetune.weights == Path.cwd() / "timm"
    with pytest.raises(UserError, match=r"^command line: detection\.backbone: finetune\.weights: timm is for .* give"):
        load_config(DetectionConfig, path, ["detection.backbone=swin_a"])
    without = next(name for name in timm.list_models() if not timm.models.is_model_pretrained(name))
    with pytest.raises(
        UserError, match=rf"^command line: detection\.backbone: .*: timm publishes none for '{without}'"
    ):
        load_config(DetectionConfig, path, [f"detection.backbone=timm/{without}"])
    with pytest.raises(UserError, match=r"^command line: detection\.pretrained: unknown key; finetune\.weights: timm"):
        load_config(DetectionConfig, path, ["detection.pretrained=true"])


def test_backbones_of_our_own_name_are_checked_without_asking_timm(tmp_path):
    (tmp_path / "run.yaml").write_text(SHAPES + "detection: {backbone: resnet50_a}\nfinetune: {weights: timm}\n")
    code = (
        "import sys; from pathlib import Path; from detection.config import DetectionConfig;"
        "from engine.config.load import load_config; load_config(DetectionConfig, Path(sys.argv[1]));"
        "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run.yaml")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_they_have_a_schema():
    document = json_schema(Run, "run")
    assert {"data", "augmentation", "matching", "loss", "postprocess"} <= set(document["properties"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.image_size=0", "data.image_size: must be"),
        ("data.scale=[0.5, 0.1]", "data.scale: the smaller number comes first"),
        ("data.classes=[circel]", "did you mean 'circle'"),
        ("matching.iou=1.5", "matching.iou: must be a number > 0 and <= 1, not 1.5"),
        ("loss.boxes=diou", "loss.boxes: must be 'smooth_l1', 'giou' or 'ciou', not 'diou'"),
        ("loss.normalizer=0", "loss.normalizer: must be"),
        ("postprocess.nms_iou=0", "postprocess.nms_iou: must be"),
        (
            "augmentation.iou_crop.overlaps=[1.0]",
            "augmentation.iou_crop.overlaps[0]: must be a number >= 0 and < 1",
        ),
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
    modules = ", ".join(f"detection.{room}.sections" for room in ("data", "augmentation", "boxes", "model"))
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'torchvision', 'numpy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_shape_that_does_not_fit_is_placed_where_it_was_set(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        SHAPES + "detection:\n  backbone: swin_b\n  swin:\n    depths: [1, 1, 1]\n    num_heads: [1, 1, 1]\n"
    )
    with pytest.raises(UserError, match=r"^command line: detection\.swin\.depths: swin: depths \(\) and num_heads"):
        load_config(DetectionConfig, path, ["detection.swin.depths=[]"])
    path.write_text(SHAPES + "detection: {backbone: swin_b}\n")
    with pytest.raises(UserError, match=r"^command line: detection\.swin: depths \(\) and num_heads"):
        load_config(DetectionConfig, path, ["detection.swin.depths=[]"])


def test_another_backbone_on_the_command_line_leaves_out_a_swins_shape(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(SHAPES + "detection: {backbone: swin_b, swin: {window_size: 4}}\n")
    found = load_config(DetectionConfig, path, ["detection.backbone=resnet50_a"]).detection
    assert found == TimmDetector(backbone="resnet50_a")
