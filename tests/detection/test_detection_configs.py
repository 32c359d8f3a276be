"""Every shipped configuration of detection is right, says what it is for, and the recipes are the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from detection.config import DetectionConfig
from engine.config.load import load_config
from engine.training.schedule import Schedule

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "detection"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
BACKBONES = ("resnet50_a", "resnet50_b", "swin_a", "swin_b")
NECKS = ("none", "fpn", "pan", "dense_fpn")
STEPS = 117_266 // 256
"""In an epoch of COCO's training images."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_loads_and_explains_itself(path: Path) -> None:
    assert load_config(DetectionConfig, path).experiment.name == path.stem
    head = path.read_text().split("\nbase:")[0].split("\nexperiment:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert all(f"# {word}" in head for word in ("Run:", "Hardware:", "Expect:"))
    assert "$schema=../schema/detection.json" in head


@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_recipes_of_the_sixteen(backbone: str, neck: str) -> None:
    name = backbone if neck == "none" else f"{backbone}_{neck}"
    config = load_config(DetectionConfig, FOLDER / f"{name}.yaml")
    assert (config.detection.backbone, config.detection.neck) == (backbone, neck)
    assert config.training.global_batch_size == 256
    if backbone.startswith("resnet50"):
        expected = (300, "momentum", 2.6e-3, 5e-4, 65)
        drops, warm_up = {43: 0.1, 54: 0.01}, 1
    else:
        expected = (336, "adamw", 1e-4, 0.05, 52)
        drops, warm_up = {32: 0.1, 42: 0.01, 49: 0.001}, 2
    optimizer = config.optimizer
    found = (config.data.image_size, optimizer.name, optimizer.lr, optimizer.weight_decay, config.training.epochs)
    assert found == expected
    schedule = Schedule(config.schedule, optimizer.lr, STEPS, config.training.epochs * STEPS)
    assert schedule.factor(warm_up * STEPS) == 1 and schedule.factor(warm_up * STEPS - 2) < 1
    for epoch, factor in drops.items():
        assert schedule.factor(epoch * STEPS) == pytest.approx(factor)
        assert schedule.factor(epoch * STEPS - 1) == pytest.approx(10 * factor)
