"""Pictures named on a command line: files, and folders that are searched for them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from detection.augmentation.transforms import EvalTransform
from engine.data.batch_plan import Draw
from engine.data.names import Names
from engine.errors import UserError
from engine.images.image_io import read_picture

log = logging.getLogger(__name__)

DETECTIONS = "detections.json"
"""What a prediction writes."""
DRAWINGS = "pictures"
"""The folder beside it with the boxes drawn."""
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""What the names of pictures in a folder end with, in small or capital letters."""


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """The files among ``paths`` whatever their names, and the pictures in folders and below, sorted; each once.

    Links are followed; those that lead nowhere count as pictures, so that reading tells of them. Hidden files and
    folders are left out, and so are, with a line in the log, files of other kinds and what a prediction has drawn.

    Raises:
        UserError: a path does not exist, or there is no picture.
    """
    found: list[Path] = []
    others: list[Path] = []
    drawings: list[Path] = []
    for path in paths:
        if path.is_dir():
            for file in sorted(_files_below(path, drawings)):
                (found if _is_picture(file) else others).append(file)
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"--images: there is no file or folder {path}")
    _tell("files of other kinds", others)
    _tell(f"folders {DRAWINGS} beside a {DETECTIONS}, which predict has drawn,", drawings)
    if not found:
        raise UserError(f"--images: no pictures ({', '.join(ENDINGS)}) in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(found))


def _files_below(folder: Path, drawings: list[Path]) -> Iterator[Path]:
    """All files that are not hidden; each folder once, however many links lead to it.

    Folders of drawings are not entered but added to ``drawings``.
    """
    seen: set[tuple[int, int]] = set()
    for name, subfolders, files in os.walk(folder, onerror=_tell_unreadable, followlinks=True):
        path, status = Path(name), os.stat(name)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(subfolder for subfolder in subfolders if not subfolder.startswith("."))
        if DETECTIONS in files and DRAWINGS in subfolders:
            subfolders.remove(DRAWINGS)
            drawings.append(path / DRAWINGS)
        yield from (path / file for file in files if not file.startswith("."))


def _is_picture(file: Path) -> bool:
    """Whether ``file`` is called so, and is a file or a link that leads nowhere; pipes and the like are not."""
    return file.suffix.lower() in ENDINGS and (file.is_file() or not file.exists())


def _tell(what: str, paths: Sequence[Path]) -> None:
    if paths:
        log.info("--images: %d %s left out; the first: %s", len(set(paths)), what, paths[0])


def _tell_unreadable(error: OSError) -> None:
    log.warning("left out: the folder %s cannot be read: %s", error.filename, error.strerror)


class FileReader:
    """Reads files for a model.

    A sample is ``image``, uint8 (3, height, width), ``index``, ``size``, (2,) width and height of the picture, and
    ``fault``: empty, or why the file is no picture. The others are of a black picture then.
    """

    def __init__(self, paths: Names, transform: EvalTransform) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        fault = ""
        try:
            picture = read_picture(Path(self._paths[draw.index]))
        except UserError as error:
            picture, fault = Image.new("RGB", (1, 1)), str(error)
        size = torch.tensor([picture.width, picture.height])
        return {"image": self._transform(picture), "index": draw.index, "size": size, "fault": fault}
