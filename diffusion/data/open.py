"""From the `data` section to images, with classes or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion.data.sections import DiffusionDataConfig, ImagesSource
from engine.datasets.class_folders import absent_splits, has_split, split_folder
from engine.datasets.dataset import open_images
from engine.datasets.holdout import part
from engine.datasets.labelled import FileImages, LabelledImages, digests, indexed
from engine.datasets.preflight import faults_of, warn_of_likenesses
from engine.errors import UserError
from engine.images.folder_listing import LeftOut, files_below

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
    own = split == "test" or (has_split(config.root, "train") and has_split(config.root, "val"))

    def listing(watched: list[str]) -> FileImages:
        watched += absent_splits(config.root)
        # Of one folder for two splits it is told once what is left out.
        images = _below(config, unlabelled_folder(config, split), watched, tell=own or split == "train")
        return images if own else part(images, config, split)

    try:
        return indexed(
            config.root, ["images", own, split, config.extensions, config.val_fraction, config.split_seed], listing
        )
    except OSError as error:
        raise UserError(f"data.root: {error.filename} cannot be read: {error.strerror}") from None


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


def _below(config: ImagesSource, folder: Path, watched: list[str], tell: bool) -> FileImages:
    left_out = LeftOut(str(folder))
    names = sorted(left_out.images(folder, files_below(folder, left_out), config.extensions))
    if tell:
        left_out.tell("name their endings in data.extensions, or rename the files")
    if not names:
        raise UserError(f"data.root: no images ({', '.join(config.extensions)}) below {folder}")
    watched += left_out.folders
    return FileImages(folder, UNNAMED, np.zeros(len(names), np.int64), names)


def open_first(data: DiffusionDataConfig) -> tuple[dict[str, LabelledImages], dict[str, tuple[str, str]]]:
    """Opens train and val, with the digests of each.

    Raises:
        UserError: they are not there, or not as they should be: better known before training than after an epoch.
    """
    opened = {split: open_split(data, split) for split in SPLITS}
    if faults := faults_of(opened["train"], opened["val"], data.max_unreadable):
        raise UserError(faults)
    warn_of_likenesses(opened["train"], opened["val"])
    return opened, {split: digests(images) for split, images in opened.items()}
