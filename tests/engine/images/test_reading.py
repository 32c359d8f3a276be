"""Files of which nothing is known, on their way to a model."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from engine.data.batch_plan import Draw
from engine.data.names import Names
from engine.images.normalization import Normalization
from engine.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from engine.images.reading import ImageFileReader
from engine.images.transforms import EvalTransform

READY = Preprocessing(16, 24, "squash", 1.0, "bilinear", IMAGENET_MEAN, IMAGENET_STD)


def test_a_broken_image_says_why(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    reader = ImageFileReader(Names([f"{tmp_path}/good.png", f"{tmp_path}/bad.png"]), EvalTransform(READY))
    good, bad = (reader[Draw(index, 0, index)] for index in range(2))
    assert good["fault"] == "" and good["size"].tolist() == [40, 30] and good["image"].shape == (3, 16, 24)
    assert good["image"][0].eq(255).all()
    assert "bad.png: cannot be read as an image (it is empty)" in bad["fault"]
    assert bad["image"].shape == (3, 16, 24)


def test_channels_are_normalized_each_by_its_own_values() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(Normalization(READY, torch.device("cpu"))(images), (images / 255 - mean) / std)
