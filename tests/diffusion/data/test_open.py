"""Folders of images without classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion.data.open import open_first, open_split
from diffusion.data.sections import ImagesSource
from engine.errors import UserError


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), len(name), np.uint8)).save(folder / name)


def source(root: Path, **changes: Any) -> ImagesSource:
    return ImagesSource(source="images", root=root, **changes)


def names(config: ImagesSource, split: str) -> list[str]:
    images = open_split(config, split)
    return [images.name(index) for index in range(len(images))]


def test_images_at_any_depth_are_divided(tmp_path: Path) -> None:
    files = [f"{folder}/{n}.png" for folder in ("a", "b/c") for n in range(10)]
    write(tmp_path, "top.png", *files, ".hidden.png")
    (tmp_path / "notes.txt").write_text("no image")
    config = source(tmp_path, val_fraction=0.2)
    train, val = names(config, "train"), names(config, "val")
    assert sorted(train + val) == sorted(["top.png", *files]) and len(val) == 4
    assert names(config, "val") == val != names(source(tmp_path, val_fraction=0.2, split_seed=1), "val")
    opened, digests = open_first(config)
    assert opened["train"].classes == ["image"] and set(digests) == {"train", "val"}
    with pytest.raises(UserError, match="no folder train, so there is no test"):
        open_split(config, "test")


def test_folders_of_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, "train/1.png", "train/x/2.png", "validation/3.png", "test/4.png", "other/5.png")
    config = source(tmp_path)
    assert [names(config, split) for split in ("train", "val", "test")] == [["1.png", "x/2.png"], ["3.png"], ["4.png"]]


def test_a_train_without_val_is_divided(tmp_path: Path) -> None:
    write(tmp_path, *(f"train/{n}.png" for n in range(40)))
    assert (len(names(source(tmp_path), "train")), len(names(source(tmp_path), "val"))) == (38, 2)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: .*missing does not exist"):
        open_split(source(tmp_path / "missing"), "train")
    with pytest.raises(UserError, match=r"data\.root: no images \(.*\.png.*\) below"):
        open_split(source(tmp_path), "train")
    write(tmp_path, "a.png", "b.png")
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be read as an image"):
        open_first(source(tmp_path))
