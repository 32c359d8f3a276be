"""Small runs: a detector of few parameters on drawn shapes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from detection.config import DetectionConfig
from engine.images.preprocessing import IMAGENET_STD, Channels, Preprocessing

SHAPES = {
    "source": "shapes",
    "classes": ["circle", "square"],
    "train_images": 24,
    "val_images": 10,
    "canvas_size": [48, 56],
    "max_objects": 2,
    "scale": [0.3, 0.6],
    "background": "noise",
    "image_size": 48,
    "workers": 0,
}
TINY = {
    "detection": {"backbone": "timm/test_byobnet", "neck": "fpn", "neck_channels": 16},
    "data": SHAPES,
    "training": {"steps": 6, "global_batch_size": 8, "precision": "fp32"},
    "evaluation": {"batch_size": 4},
    "logging": {"every_steps": 2},
    "distributed": {"device": "cpu"},
}
SWIN_SHAPE = {"patch_size": 4, "window_size": 4, "embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2]}
TRAIN = [sys.executable, "-m", "detection.train"]
EVALUATE = [sys.executable, "-m", "detection.evaluate"]
PREDICT = [sys.executable, "-m", "detection.predict"]


def tree(**changes: dict) -> dict[str, Any]:
    """:data:`TINY` with ``changes``, section by section; a section with a ``source`` of its own replaces the base's.

    The channels of TINY's neck go with it.
    """
    sections = {
        name: new if "source" in (new := changes.get(name, {})) else {**TINY.get(name, {}), **new}
        for name in {**TINY, **changes}
    }
    if sections["detection"]["neck"] == "none":
        del sections["detection"]["neck_channels"]
    return sections


def prepared(size: tuple[int, int], interpolation: str = "bilinear", mean: Channels = (0.5, 0.5, 0.5)) -> Preprocessing:
    """Images squashed to ``size`` (height, width), whose values are only told apart by their mean."""
    return Preprocessing(*size, "squash", 1.0, interpolation, mean, IMAGENET_STD)


def config_of(**changes: dict) -> DetectionConfig:
    """The configuration of a small run."""
    return DetectionConfig.model_validate_json(json.dumps(tree(**changes)))


def write_config(folder: Path, **changes: dict) -> Path:
    """The same as a file in ``folder``, recorded below ``folder``."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree(experiment={"root": str(folder / "experiments")}, **changes)))
    return path
