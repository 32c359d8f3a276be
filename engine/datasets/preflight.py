"""What is looked at before training, or before it is queued, so that a missing image is not first met hours later."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from engine.datasets.class_folders import split_folder
from engine.datasets.csv_labels import open_csv
from engine.datasets.labelled import FileImages, LabelledImages
from engine.datasets.sections import CsvData, DataConfig, FolderData, TorchvisionData
from engine.datasets.torchvision_sets import download, open_torchvision
from engine.errors import UserError
from engine.images.file_check import THREADS, look_at_some
from engine.images.image_io import read_image

NAMED = 5
"""Broken or missing images that a message names."""


def look_for_data(data: DataConfig) -> None:
    """Looks for the parts of a data set, not into each image; fetches it if the run is to.

    Raises:
        UserError: something is not there; the text says where it was looked for.
    """
    match data:
        case FolderData():
            for split in ("train", "val") if data.val_fraction is None else ("train",):
                split_folder(data.root, split)
        case CsvData():
            open_csv(data, "val")
        case TorchvisionData():
            if data.download:
                download(data)
            open_torchvision(data, "val")


def faults_of(data: DataConfig, train: LabelledImages, val: LabelledImages, open_train: bool = False) -> str:
    """Lists what is wrong with images in files, a line each; empty if nothing is.

    That is those that a list names and that are not there, and those of val that are broken. Broken ones of train are
    met in the first epoch, and looked for here if ``open_train`` says so.
    """
    in_files = [images for images in (train, val) if isinstance(images, FileImages)]
    if not isinstance(data, FolderData):  # whose folders were read a moment ago
        missing = [text for images in in_files if (text := missing_images(images))]
        if missing:
            return "\n".join(missing)
    looked_at = in_files if open_train else [images for images in in_files if images is val]
    return "\n".join(text for images in looked_at if (text := broken_images(images)))


def missing_images(images: FileImages) -> str:
    """Says how many of the files are not there, and the first few; empty if all are.

    Lists each folder once, which a network's file system does far sooner than it looks for each file.
    """
    by_folder: dict[str, list[tuple[int, str]]] = {}
    for index in range(len(images)):
        folder, name = os.path.split(images.name(index))
        by_folder.setdefault(folder, []).append((index, name))

    def missing_in(folder: str) -> list[int]:
        try:
            there = set(os.listdir(images.root / folder))
        except OSError:
            there = set()
        return [index for index, name in by_folder[folder] if name not in there]

    with ThreadPoolExecutor(THREADS) as pool:
        missing = sorted(index for indices in pool.map(missing_in, by_folder) for index in indices)
    if not missing:
        return ""
    lines = [
        f"data: {len(missing)} of {len(images)} images that are listed are not there (paths start from data.root, "
        f"{images.root}):",
        *(f"{images.path(index)}: no such image" for index in missing[:NAMED]),
    ]
    return "\n".join([*lines, f"and {len(missing) - NAMED} more"] if len(missing) > NAMED else lines)


def broken_images(images: FileImages) -> str:
    """Lists what is wrong with files that are no images by their headers, a line each; empty if nothing is."""
    faults = look_at_some(len(images), lambda index: _fault(images.path(index)))
    broken = [fault for fault in faults.values() if fault]
    more = f"and {len(broken) - NAMED} more of the {len(faults)} images looked at"
    return "\n".join([*broken[:NAMED], more] if len(broken) > NAMED else broken)


def _fault(path: Path) -> str:
    """Returns what whoever reads the image says of it; empty if its header is fine."""
    try:
        with Image.open(path):
            return ""
    except Exception:  # a decoder that meets broken data raises whatever its parsing trips over
        try:
            read_image(path)
        except UserError as error:
            return str(error)
    return f"{path}: cannot be opened at times"
