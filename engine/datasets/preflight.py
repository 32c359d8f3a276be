"""What is looked at before training, or before it is queued, so that a missing image is not first met hours later."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from engine.datasets.class_folders import split_folder
from engine.datasets.csv_labels import open_csv
from engine.datasets.labelled import FilePictures, LabelledPictures
from engine.datasets.sections import CsvData, DataConfig, FolderData, TorchvisionData
from engine.datasets.torchvision_sets import download, open_torchvision
from engine.errors import UserError
from engine.images.file_check import THREADS, look_at_some
from engine.images.image_io import read_picture

NAMED = 5
"""Broken or missing pictures that a message names."""


def look_for_data(data: DataConfig) -> None:
    """Looks for the parts of a data set, not into each picture; fetches it if the run is to.

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


def faults_of(data: DataConfig, train: LabelledPictures, val: LabelledPictures, open_train: bool = False) -> str:
    """Lists what is wrong with images in files, a line each; empty if nothing is.

    That is those that a list names and that are not there, and those of val that are broken. Broken ones of train are
    met in the first epoch, and looked for here if ``open_train`` says so.
    """
    in_files = [pictures for pictures in (train, val) if isinstance(pictures, FilePictures)]
    if not isinstance(data, FolderData):  # whose folders were read a moment ago
        missing = [text for pictures in in_files if (text := missing_pictures(pictures))]
        if missing:
            return "\n".join(missing)
    looked_at = in_files if open_train else [pictures for pictures in in_files if pictures is val]
    return "\n".join(text for pictures in looked_at if (text := broken_pictures(pictures)))


def missing_pictures(pictures: FilePictures) -> str:
    """Says how many of the files are not there, and the first few; empty if all are.

    Lists each folder once, which a network's file system does far sooner than it looks for each file.
    """
    by_folder: dict[str, list[tuple[int, str]]] = {}
    for index in range(len(pictures)):
        folder, name = os.path.split(pictures.name(index))
        by_folder.setdefault(folder, []).append((index, name))

    def missing_in(folder: str) -> list[int]:
        try:
            there = set(os.listdir(pictures.root / folder))
        except OSError:
            there = set()
        return [index for index, name in by_folder[folder] if name not in there]

    with ThreadPoolExecutor(THREADS) as pool:
        missing = sorted(index for indices in pool.map(missing_in, by_folder) for index in indices)
    if not missing:
        return ""
    lines = [
        f"data: {len(missing)} of {len(pictures)} pictures that are listed are not there (paths start from data.root, "
        f"{pictures.root}):",
        *(f"{pictures.path(index)}: no such picture" for index in missing[:NAMED]),
    ]
    return "\n".join([*lines, f"and {len(missing) - NAMED} more"] if len(missing) > NAMED else lines)


def broken_pictures(pictures: FilePictures) -> str:
    """Lists what is wrong with files that are no images by their headers, a line each; empty if nothing is."""
    opens = look_at_some(len(pictures), lambda index: _opens(pictures.path(index)))
    broken = [pictures.path(index) for index, fine in opens.items() if not fine]
    lines = [_fault(path) for path in broken[:NAMED]]
    if len(broken) > NAMED:
        lines.append(f"and {len(broken) - NAMED} more of the {len(opens)} pictures looked at")
    return "\n".join(lines)


def _opens(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except Exception:  # a decoder that meets broken data raises whatever its parsing trips over
        return False


def _fault(path: Path) -> str:
    """Returns the words of whoever reads the image."""
    try:
        read_picture(path)
    except UserError as error:
        return str(error)
    return f"{path}: cannot be opened at times"
