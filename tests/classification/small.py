"""Small runs: a tiny Swin on the digits, and folders of generated JPEG files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

TINY = {
    "model": {
        "name": "swin",
        "patch_size": 2,
        "window_size": 4,
        "embed_dim": 12,
        "depths": [2, 2],
        "num_heads": [2, 2],
    },
    "data": {"source": "digits", "image_size": 16, "workers": 0},
    "augmentation": {"random_resized_crop": None, "horizontal_flip": 0.0, "shift": 1},
    "training": {"steps": 6, "global_batch_size": 16, "precision": "fp32"},
    "evaluation": {"batch_size": 90},
    "logging": {"every_steps": 2},
    "distributed": {"device": "cpu"},
}
TRAIN = [sys.executable, "-m", "classification.train"]
EVALUATE = [sys.executable, "-m", "classification.evaluate"]


def merged(base: dict, changes: dict) -> dict:
    """``base`` with ``changes``, section by section; data of another source and models of others replace the base's."""
    sections = {}
    for name in {**base, **changes}:
        old, new = base.get(name, {}), changes.get(name, {})
        anew = "source" in new or str(new.get("name", "")).startswith(("timm/", "keras/"))
        sections[name] = new if anew else {**old, **new}
    return sections


def write_config(folder: Path, **changes: dict) -> Path:
    """A configuration file in ``folder`` for a run of :data:`TINY` with ``changes``, recorded below ``folder``."""
    path = folder / "run.yaml"
    tree = merged({**TINY, "experiment": {"root": str(folder / "experiments")}}, changes)
    path.write_text(yaml.safe_dump(tree))
    return path


def write_images(folder: Path, classes: dict[str, int], seed: int = 0, size: int = 20) -> None:
    """A folder of JPEG files for each class: noise around a brightness of its own."""
    rng = np.random.default_rng(seed)
    for number, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = rng.normal(60 + 60 * number, 30, (size, size, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i:03d}.jpg")


def folder_data(root: Path) -> dict:
    """The data section for class folders below ``root``."""
    return {"source": "folder", "root": str(root), "image_size": 16, "workers": 0}


def write_multilabel_data(root: Path, train: int = 48, val: int = 24, test: int = 0, seed: int = 0) -> dict:
    """Images in which red, green and blue are bright, each or not, and the data section for their table.

    The colours are of unequal frequency, and some images show none.
    """
    rng = np.random.default_rng(seed)
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    shown = rng.random((len(splits), 3)) < [0.6, 0.35, 0.15]
    shown[[0, train]] = True
    root.mkdir(parents=True)
    lines = ["file,labels,split"]
    for i, colours in enumerate(shown):
        pixels = rng.normal(60 + 120 * colours, 40, (20, 20, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{i:03d}.jpg")
        names = "|".join(np.array(["red", "green", "blue"])[colours])
        lines.append(f"{i:03d}.jpg,{names},{splits[i]}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return {
        "source": "csv",
        "root": str(root),
        "csv": str(root / "labels.csv"),
        "label_columns": ["labels"],
        "label_separator": "|",
        "split_column": "split",
        "image_size": 16,
        "workers": 0,
    }
