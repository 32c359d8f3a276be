"""Small COCO-format data sets on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detection.data.sections import CocoData

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 90, "name": "owl"}]


def box(number: int, image: Any, bbox: Any, category: Any = 2, **keys: Any) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **keys}


def write_split(root: Path, split: str, annotations: list[dict], count: int = 3, **changes: Any) -> None:
    """Images 101, 102, ... of 40 x 30 noise, and their JSON; ``changes`` replaces lists of it."""
    (root / split).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(split.encode()))
    images = []
    for number in range(count):
        name = f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(root / split / name)
        images.append({"id": 101 + number, "file_name": name, "width": 40, "height": 30})
    document = {"images": images, "annotations": annotations, "categories": CATEGORIES, **changes}
    (root / f"{split}.json").write_text(json.dumps(document))


def coco_data(root: Path, **changes: Any) -> CocoData:
    """The `data` section for splits written by :func:`write_split`."""
    files = {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")}
    return CocoData.model_validate({"source": "coco", "root": str(root), "workers": 0, **files, **changes})
