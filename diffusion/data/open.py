"""From the `data` section to images, with classes or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion.data.sections import DiffusionDataConfig, ImagesSource
from engine.datasets.class_folders import files_below, has_split, split_folder
from engine.datasets.dataset import open_images
from engine.datasets.holdout import part
from engine.datasets.labelled import FileImages, LabelledImages, names_digest
from engine.datasets.preflight import faults_of
from engine.errors import UserError

SPLITS = ("train", "val")
"""What a run uses, and a checkpoint describes."""
UNNAMED = ["image"]
"""The one class of images without classes."""


def open_split(data: DiffusionDataConfig, split: str, classes: list[str] | None = None) -> LabelledImages:
    """Opens the images of ``split``: train, val or test.

    Args:
        data: Where they are.
        split: Which.
        classes: Those that a trained model knows, as for :func:`engine.datasets.dataset.open_images`.

    Raises:
        UserError: they are not there, or not as they should be.
    """
    return open_unlabelled(data, split) if isinstance(data, ImagesSource) else open_images(data, split, classes)


def open_unlabelled(config: ImagesSource, split: str) -> FileImages:
    """Opens a split of images without classes: those below the folder of that name, if there is a train.

    Raises:
        UserError: the folder is not there, or there are no images in it.
    """
    images = _below(config, unlabelled_folder(config, split))
    own = split == "test" or (has_split(config.root, "train") and has_split(config.root, "val"))
    return images if own else part(images, config, split)


def unlabelled_folder(config: ImagesSource, split: str) -> Path:
    """Returns the folder below which the images of a split are; val may be a part of those of train.

    Raises:
        UserError: it is not there.
    """
    root = config.root
    if has_split(root, "train"):
        return split_folder(root, split if split == "test" or has_split(root, "val") else "train")
    if split == "test":
        raise UserError(f"data.root: {root} has no folder train, so there is no test besides val")
    if not root.is_dir():
        raise UserError(f"data.root: {root} does not exist")
    return root


def _below(config: ImagesSource, folder: Path) -> FileImages:
    endings = tuple(ending.lower() for ending in config.extensions)
    names = sorted(name for name in files_below(folder) if name.lower().endswith(endings))
    if not names:
        raise UserError(f"data.root: no images ({', '.join(config.extensions)}) below {folder}")
    return FileImages(folder, UNNAMED, np.zeros(len(names), np.int64), names)


def open_first(data: DiffusionDataConfig) -> tuple[dict[str, LabelledImages], dict[str, str]]:
    """Opens train and val, with a digest of the names of each.

    Raises:
        UserError: they are not there, or not as they should be: better known before training than after an epoch.
    """
    opened = {split: open_split(data, split) for split in SPLITS}
    if faults := faults_of(data, opened["train"], opened["val"]):
        raise UserError(faults)
    return opened, {split: names_digest(images) for split, images in opened.items()}
