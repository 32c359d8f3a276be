"""Small runs: a tiny Swin U-Net on the digits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from diffusion.config import DiffusionConfig
from engine.config.load import load_config

TINY: dict[str, dict[str, Any]] = {
    "model": {
        "name": "swin_unet",
        "patch_size": 2,
        "window_size": 2,
        "embed_dim": 12,
        "depths": [1, 1],
        "num_heads": [2, 2],
    },
    "data": {"source": "digits", "image_size": 8, "channels": 1, "workers": 0},
    "diffusion": {"sampling": {"sampler": "ddim", "steps": 3, "block": 8}},
    "training": {"steps": 6, "global_batch_size": 24, "precision": "fp32"},
    "evaluation": {"batch_size": 90, "grid_rows": 1},
    "logging": {"every_steps": 2},
    "distributed": {"device": "cpu"},
}
TRAIN = [sys.executable, "-m", "diffusion.train"]
SAMPLE = [sys.executable, "-m", "diffusion.sample"]


def tree(**changes: dict[str, Any]) -> dict[str, Any]:
    """:data:`TINY` with changes, section by section; another source or model replaces its own."""
    names = {**TINY, **changes}
    anew = {name for name, section in changes.items() if "source" in section or "name" in section}
    return {name: {**({} if name in anew else TINY.get(name, {})), **changes.get(name, {})} for name in names}


def config_of(**changes: dict[str, Any]) -> DiffusionConfig:
    """A configuration of :func:`tree`."""
    return DiffusionConfig.model_validate_json(json.dumps(tree(**changes)))


def write_config(folder: Path, **changes: dict[str, Any]) -> Path:
    """A configuration file in ``folder`` of :func:`tree`, recorded below ``folder``."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**tree(**changes), "experiment": {"root": str(folder / "experiments")}}))
    return path


def loaded(folder: Path, *overrides: str, **changes: dict[str, Any]) -> DiffusionConfig:
    """What is read of :func:`write_config` with settings of a command line."""
    return load_config(DiffusionConfig, write_config(folder, **changes), overrides)
