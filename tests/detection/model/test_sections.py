"""What the model part of the `detection` section accepts and refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from detection.config import DetectionConfig
from detection.model.sections import BACKBONES, DetectorConfig
from engine.config.load import load_config
from tests.sections import section

ROOT = Path(__file__).resolve().parents[3]


def test_every_key_has_a_default_and_every_backbone_is_accepted() -> None:
    assert section(DetectorConfig).neck == "none"
    for backbone in BACKBONES:
        assert section(DetectorConfig, backbone=backbone).backbone == backbone
    assert section(DetectorConfig, backbone="timm/tf_efficientnet_lite0").timm_name == "tf_efficientnet_lite0"


def test_swins_of_any_size() -> None:
    shapes = {
        name: section(DetectorConfig, backbone=name).swin_shape() for name in ("swin_a", "swin_small_b", "swin_large")
    }
    assert [(s.embed_dim, s.depths[2]) for s in shapes.values()] == [(96, 6), (96, 18), (192, 18)]
    shape = {"embed_dim": 24, "depths": (2, 2, 2), "num_heads": (1, 2, 4)}
    config = section(DetectorConfig, backbone="swin_b", drop_path=0.0, swin=shape)
    assert config.swin_shape().dims == (24, 48, 96) and config.swin_shape().drop_path == 0.0


def test_yaml(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    ratios = "priors: {ratios: [[2], [2, 3], [2], [], [2], [2]]}"
    path.write_text(f"data: {{source: shapes}}\ndetection: {{backbone: swin_a, {ratios}}}\n")
    config = load_config(DetectionConfig, path, ["detection.neck=pan"]).detection
    assert (config.neck, config.priors.per_cell) == ("pan", (4, 6, 4, 2, 4, 4))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"backbone": "resnet50_c"}, "no model 'resnet50_c'; did you mean 'resnet50_"),
        ({"backbone": "swin_tinny"}, "did you mean 'swin_tiny'"),
        ({"backbone": "resnet18"}, "did you mean 'timm/resnet18'"),
        ({"backbone": "timm/resnet5"}, "no model 'timm/resnet5'; did you mean 'timm/resnet5"),
        ({"backbone": "timm/test_vit5"}, "no model 'timm/test_vit5'"),
        ({"backbone": "resnet50_a", "swin": {"window_size": 8}}, "swin\\n  Extra inputs are not permitted"),
        ({"backbone": "swin_tiny", "swin": {"patch_size": 16}}, r"strides 8, 16 and 32, not \[16, 32, 64, 128\]"),
        ({"backbone": "swin_a", "swin": {"depths": (2, 2), "num_heads": (1, 2)}}, "needs three stages, not 2"),
        ({"backbone": "swin_a", "swin": {"embed_dim": 100}}, "cannot be split"),
        ({"neck": "FPN"}, "'none', 'fpn', 'pan' or 'dense_fpn'"),
        ({"priors": {"scales": (0.1, 0.2)}}, "at least 6 items"),
        ({"priors": {"ratios": ((0.5,),) * 6}}, "greater than 1"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        section(DetectorConfig, **fields)


def test_the_types_are_quick_to_import() -> None:
    code = (
        "import sys; from detection.model.sections import SwinDetector; SwinDetector(backbone='swin_b', neck='pan');"
        "sys.exit(bool({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
