"""A cheap look at pictures before training, so that a broken one is not first met when an epoch is over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from classification.folders import FolderPictures
from engine.errors import UserError
from engine.pictures import read_picture

LOOKED_AT = 2000
"""Most files that are opened; of more pictures, so many at even distances."""

NAMED = 5
"""Broken pictures that the message names."""


def broken_pictures(pictures: FolderPictures) -> str:
    """What is wrong with files that are no pictures by their headers, a line each; empty if nothing is.

    Opening reads some hundred bytes of a file and decodes nothing: what is damaged further in is found when it is used.
    """
    count = min(len(pictures), LOOKED_AT)
    paths = [pictures.path(place * len(pictures) // count) for place in range(count)]
    with ThreadPoolExecutor(16) as pool:  # waiting for a network's file system, not computing
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
    """The words of whoever reads the picture."""
    try:
        read_picture(path)
    except UserError as error:
        return str(error)
    return f"{path}: cannot be opened at times"
