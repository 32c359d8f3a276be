"""Images in folders, one folder a class."""

from __future__ import annotations

import difflib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from engine.data.names import Names
from engine.datasets.holdout import HOW_TO_HOLD_OUT, part
from engine.datasets.labelled import FileImages, some
from engine.datasets.sections import FolderData
from engine.errors import UserError

log = logging.getLogger(__name__)

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}


def open_folder(config: FolderData, split: str, known: list[str] | None = None) -> FileImages:
    """Opens the images of one split below ``config.root``.

    Hidden files and folders are left out, links are followed, and images may lie in folders below their class's. The
    classes are the folders of train, in sorted order; in val and test they may be missing or empty. Where train itself
    is missing, they are those that are ``known``, if any are.

    Raises:
        UserError: a folder is missing, a class has no training images, or val or test has a class that train lacks.
    """
    if config.val_fraction is None or split != "val":  # which is in the folder of train: reported once
        folder = split_folder(config.root, split)
        loose = _images((entry.name for entry in os.scandir(folder) if entry.is_file()), config.extensions)
        if loose:
            log.warning("%s: images beside the folders of classes are of none and left out: %s", folder, some(loose))
    if config.val_fraction is None or split == "test":
        return _open(config, split, known)
    if has_split(config.root, "val"):
        raise UserError(f"data.val_fraction: {config.root} has a val of its own; set data.val_fraction=null")
    return part(_open(config, "train", None), config, split)


def _open(config: FolderData, split: str, known: list[str] | None) -> FileImages:
    folder = split_folder(config.root, split)
    classes = found = _class_names(folder)
    if split != "train" and known is not None and not has_split(config.root, "train"):
        classes = known
        if strange := sorted(set(found) - set(known)):
            raise UserError(f"{folder}: has folders of classes that the model was not trained on: {some(strange)}")
    elif split != "train":
        train = split_folder(config.root, "train")
        classes = _class_names(train)
        if only_here := sorted(set(found) - set(classes)):
            only_train = some(sorted(set(classes) - set(found)))
            renamed = f" (and {only_train} only there: is it the same under another name?)" if only_train else ""
            raise UserError(
                f"{folder} has classes that {train} has not: {some(only_here)}{renamed}; rename these folders, or take "
                "them away"
            )
    present, counts = set(found), list[int]()

    def paths() -> Iterator[str]:
        """Class by class, so that never more than one class's names are Python objects."""
        for name in classes:
            chosen = _images(files_below(folder / name), config.extensions) if name in present else []
            if not chosen and split == "train":
                raise UserError(_no_images(folder / name, config.extensions))
            counts.append(len(chosen))
            yield from (f"{name}/{file}" for file in chosen)

    names = Names(paths())
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if len(empty) == len(classes):
        raise UserError(f"{folder}: no images in any class ({', '.join(config.extensions)})")
    if empty:
        log.warning("%s: no images of %d of %d classes: %s", folder, len(empty), len(classes), some(empty))
    return FileImages(folder, classes, np.repeat(np.arange(len(classes)), counts), names)


def _images(names: Iterable[str], extensions: list[str]) -> list[str]:
    """Sorts those of files' names that are of images."""
    endings = tuple(ending.lower() for ending in extensions)
    return sorted(name for name in names if name.lower().endswith(endings))


def has_split(root: Path, split: str) -> bool:
    """Returns whether the folder of a split is there."""
    return any((root / name).is_dir() for name in SPLIT_FOLDERS[split])


def split_folder(root: Path, split: str) -> Path:
    """Returns the folder of a split.

    Raises:
        UserError: it is not there, and the text says what is; or it is there twice, under both names.
    """
    names = SPLIT_FOLDERS[split]
    found = [root / name for name in names if (root / name).is_dir()]
    if len(found) > 1:
        raise UserError(f"data.root: {' and '.join(map(str, found))} both claim to be {split}; keep one")
    if found:
        return found[0]
    if not root.is_dir():
        missing = next(path for path in (root, *root.parents) if path.parent.is_dir())
        raise UserError(f"data.root: {root} does not exist; {_contents(missing.parent, missing.name)}")
    advice = f"; {HOW_TO_HOLD_OUT}" if split == "val" and has_split(root, "train") else ""
    raise UserError(
        f"data.root: {root} has no folder {' or '.join(names)} ({split}); {_contents(root, names[0])}{advice}"
    )


def _contents(folder: Path, wanted: str) -> str:
    """Says which folders are there, and which of them resembles ``wanted``."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    near = difflib.get_close_matches(wanted, names, 1)
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "no folders"
    return f"{folder} holds {shown}" + (f"; did you mean {folder / near[0]}?" if near else "")


def _class_names(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{folder}: no folders of classes; expected {folder}/CLASS/IMAGE")
    return names


def _no_images(folder: Path, extensions: list[str]) -> str:
    endings = Counter(Path(file).suffix or Path(file).name for file in sorted(files_below(folder)))
    found = ", ".join(f"{count} x {ending}" for ending, count in endings.most_common(3)) or "nothing"
    return (
        f"{folder}: no images in this class (found: {found}); add some ({', '.join(extensions)}), "
        "name other endings in data.extensions, or remove the folder"
    )


def files_below(folder: Path) -> Iterator[str]:
    """Yields the paths below ``folder`` of all files that are not hidden; each folder once, however many links lead
    to it. Folders that cannot be read are named in the log.
    """
    seen: set[tuple[int, int]] = set()

    def tell(error: OSError) -> None:
        log.warning("left out: the folder %s cannot be read: %s", error.filename, error.strerror)

    for path, subfolders, files in os.walk(folder, onerror=tell, followlinks=True):
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        prefix = "" if path == os.fspath(folder) else os.path.relpath(path, folder) + os.sep
        yield from (prefix + name for name in files if not name.startswith("."))
