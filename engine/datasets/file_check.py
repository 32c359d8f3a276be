"""A cheap look at pictures before training, so that a missing or broken one is not first met hours later."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from engine.datasets.labelled import FilePictures, LabelledPictures
from engine.datasets.sections import DataConfig, FolderData
from engine.errors import UserError
from engine.images.image_io import read_picture

LOOKED_AT = 2000
"""Most files that are opened; of more pictures, so many at even distances."""

NAMED = 5
"""Broken or missing pictures that a message names."""

THREADS = 16
"""They wait for a network's file system, and compute next to nothing."""


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
    """Lists what is wrong with files that are no images by their headers, a line each; empty if nothing is.

    Opening reads some hundred bytes of a file and decodes nothing: what is damaged further in is found when it is used.
    """
    count = min(len(pictures), LOOKED_AT)
    paths = [pictures.path(place * len(pictures) // count) for place in range(count)]
    with ThreadPoolExecutor(THREADS) as pool:
        opens = list(pool.map(_opens, paths))
    broken = [path for path, fine in zip(paths, opens, strict=True) if not fine]
    lines = [_fault(path) for path in broken[:NAMED]]
    if len(broken) > NAMED:
        lines.append(f"and {len(broken) - NAMED} more of the {count} pictures looked at")
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
