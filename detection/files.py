"""Pictures named on a command line: files, and folders that are searched for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from detection.transforms import EvalTransform
from engine.batches import Draw
from engine.errors import UserError
from engine.pictures import read_picture

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""What the names of pictures in a folder end with, in small or capital letters."""


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """The files among ``paths`` whatever their names, and the pictures in folders and below, sorted; each once.

    Raises:
        UserError: a path does not exist, or there is no picture.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"--images: there is no file or folder {path}")
    if not found:
        raise UserError(f"--images: no pictures ({', '.join(ENDINGS)}) in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(found))


class FileReader:
    """Reads files for a model.

    A sample is ``image``, uint8 (3, height, width), ``index``, ``size``, (2,) width and height of the picture, and
    ``fault``: empty, or why the file is no picture. The others are of a black picture then.
    """

    def __init__(self, paths: Sequence[Path], transform: EvalTransform) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        fault = ""
        try:
            picture = read_picture(self._paths[draw.index])
        except UserError as error:
            picture, fault = Image.new("RGB", (1, 1)), str(error)
        size = torch.tensor([picture.width, picture.height])
        return {"image": self._transform(picture), "index": draw.index, "size": size, "fault": fault}
