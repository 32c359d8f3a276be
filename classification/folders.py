"""Pictures in folders, one folder a class."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from classification.data_config import FolderData
from engine.errors import UserError
from engine.pictures import read_picture

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}


class FolderPictures:
    """The pictures below one folder; its folders are the classes, in sorted order.

    Paths are kept as one array of bytes, not as Python objects: reading those in worker processes would copy them.
    """

    multi_label = False

    def __init__(self, folder: Path, classes: list[str], files: Sequence[Sequence[str]]) -> None:
        """``files`` holds for each class its pictures' paths below the class's folder."""
        self.classes = classes
        self.labels = np.repeat(np.arange(len(classes)), [len(paths) for paths in files])
        names = [os.fsencode(path) for paths in files for path in paths]
        self._folder = folder
        self._names = np.frombuffer(b"".join(names), np.uint8)
        self._ends = np.cumsum([len(name) for name in names])

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        return self._folder / self.name(index)

    def picture(self, index: int) -> Image.Image:
        return read_picture(self.path(index))

    def name(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        file = os.fsdecode(self._names[start : self._ends[index]].tobytes())
        return f"{self.classes[self.labels[index]]}/{file}"


def open_folder(config: FolderData, split: str) -> FolderPictures:
    """The pictures of one split below ``config.root``.

    Hidden files and folders are left out, links are followed, and pictures may lie in folders below their class's.

    Raises:
        UserError: a folder is missing, a class has no pictures, or the classes are not those of train.
    """
    folder = split_folder(config.root, split)
    classes = _class_names(folder)
    if split != "train":
        _check_same_classes(split_folder(config.root, "train"), folder, classes)
    endings = tuple(ending.lower() for ending in config.extensions)
    files = [sorted(_files_below(folder / name)) for name in classes]
    pictures = [[file for file in paths if file.lower().endswith(endings)] for paths in files]
    for name, found, others in zip(classes, pictures, files, strict=True):
        if not found:
            raise UserError(_no_pictures(folder / name, others, config.extensions))
    return FolderPictures(folder, classes, pictures)


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split.

    Raises:
        UserError: it is not there; the text says what is.
    """
    names = SPLIT_FOLDERS[split]
    for name in names:
        if (root / name).is_dir():
            return root / name
    if not root.is_dir():
        raise UserError(f"data.root: {root} does not exist; {_nearest(root)}")
    raise UserError(f"data.root: {root} has no folder {' or '.join(names)} ({split}); {_contents(root, names[0])}")


def _nearest(path: Path) -> str:
    """The deepest part of ``path`` that exists, and what is in it that resembles the next part."""
    missing = next(part for part in (path, *path.parents) if part.parent.is_dir())
    return _contents(missing.parent, missing.name)


def _contents(folder: Path, wanted: str) -> str:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    near = difflib.get_close_matches(wanted, names, 1)
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "no folders"
    return f"{folder} holds {shown}" + (f"; did you mean {folder / near[0]}?" if near else "")


def _class_names(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{folder}: no folders of classes; expected {folder}/CLASS/PICTURE")
    return names


def _check_same_classes(train: Path, folder: Path, classes: list[str]) -> None:
    known = set(_class_names(train))
    only_here, only_train = sorted(set(classes) - known), sorted(known - set(classes))
    differences = [f"only in {folder}: {_some(only_here)}"] * bool(only_here)
    differences += [f"only in {train}: {_some(only_train)}"] * bool(only_train)
    if differences:
        raise UserError(f"the classes of {folder} and {train} differ; {'; '.join(differences)}; make them the same")


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _no_pictures(folder: Path, others: list[str], extensions: list[str]) -> str:
    endings = Counter(Path(file).suffix or Path(file).name for file in others)
    found = ", ".join(f"{count} x {ending}" for ending, count in endings.most_common(3)) or "nothing"
    return (
        f"{folder}: no pictures in this class (found: {found}); add some ({', '.join(extensions)}), "
        "name other endings in data.extensions, or remove the folder"
    )


def _files_below(folder: Path) -> Iterator[str]:
    """Paths below ``folder`` of all files that are not hidden; each folder once, however many links lead to it."""
    seen: set[tuple[int, int]] = set()
    for path, subfolders, files in os.walk(folder, followlinks=True):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        prefix = "" if path == os.fspath(folder) else os.path.relpath(path, folder) + os.sep
        yield from (prefix + name for name in files if not name.startswith("."))
