"""Images in folders, one folder a class."""

from __future__ import annotations

import difflib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.data.names import Names
from engine.datasets.holdout import HOW_TO_HOLD_OUT, part
from engine.datasets.labelled import FileImages, indexed, some
from engine.datasets.sections import FolderData
from engine.errors import UserError
from engine.files import is_folder
from engine.images.folder_listing import LeftOut, files_below, identity
from engine.look_alike import as_text, look, told_apart

log = logging.getLogger(__name__)

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}


def open_folder(config: FolderData, split: str, known: list[str] | None = None) -> FileImages:
    """Opens the images of one split below ``config.root``.

    Links are followed, but for those to folders that hold the class's or are another's, and images may lie in folders
    below their class's. What is left out is logged: hidden files and folders, files of other endings, what cannot be
    read. The classes are the folders of train, in sorted order; in val and test they may be missing or empty. Where
    train itself is missing, they are those that are ``known``, if any are.

    Raises:
        UserError: a folder is missing or cannot be read, a class has no training images, or val or test has a class
            that train lacks.
    """

    def listing(watched: list[str]) -> FileImages:
        watched += absent_splits(config.root)
        if config.val_fraction is None or split == "test":
            return _open(config, split, known, watched, tell=True)
        if has_split(config.root, "val"):
            raise UserError(f"data.val_fraction: {config.root} has a val of its own; set data.val_fraction=null")
        # One folder for both splits: what is left out is told once.
        return part(_open(config, "train", None, watched, tell=split == "train"), config, split)

    known = None if has_split(config.root, "train") else known
    try:
        return indexed(config.root, [split, known, config.extensions, config.val_fraction, config.split_seed], listing)
    except OSError as error:
        raise UserError(f"data.root: {error.filename} cannot be read: {error.strerror}") from None


def _open(config: FolderData, split: str, known: list[str] | None, watched: list[str], tell: bool) -> FileImages:
    """Adds to ``watched`` all folders that are looked into."""
    folder = split_folder(config.root, split)
    folders = _class_folders(folder)
    classes = list(folders)
    if split != "train" and known is not None:
        classes = known
        if strange := sorted(folders.keys() - known):
            raise UserError(f"{folder}: has folders of classes that the model was not trained on: {some(strange)}")
    elif split != "train":
        train = split_folder(config.root, "train")
        classes = list(_class_folders(train))
        watched.append(os.fspath(train))
        if only_here := sorted(folders.keys() - classes):
            raise UserError(_only_here(folder, train, only_here, sorted(set(classes) - folders.keys())))
    left_out, counts = LeftOut(str(folder)), list[int]()
    others = {identity(folder / name) for name in folders.values()}

    def paths() -> Iterator[str]:
        """Class by class, so that never more than one class's names are Python objects."""
        for name in classes:
            if name not in folders:
                counts.append(0)
                continue
            own = folder / folders[name]
            chosen = sorted(left_out.images(own, files_below(own, left_out, others), config.extensions))
            if not chosen and split == "train":
                raise UserError(_no_images(own, config.extensions, left_out))
            counts.append(len(chosen))
            yield from (f"{own.name}/{file}" for file in chosen)

    names = Names(paths())
    if tell:
        left_out.hide(str(folder), [name for name in os.listdir(folder) if name.startswith(".")])
        files = (entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith("."))
        if loose := left_out.images(folder, files, config.extensions):
            log.warning(
                "%s: images beside the folders of classes are of none and left out: %s", folder, some(sorted(loose))
            )
        left_out.tell("name their endings in data.extensions, or rename the files")
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if len(empty) == len(classes):
        raise UserError(f"{folder}: no images in any class ({', '.join(config.extensions)})")
    if empty:
        log.warning("%s: no images of %d of %d classes: %s", folder, len(empty), len(classes), some(empty))
    watched += [os.fspath(folder), *left_out.folders]
    return FileImages(folder, classes, np.repeat(np.arange(len(classes)), counts), names)


def _only_here(folder: Path, train: Path, only_here: list[str], only_train: list[str]) -> str:
    """Says which classes a split has more than train, and of which one of train's each may be another spelling."""
    by_look = {look(name): name for name in only_train}
    pairs = [(name, by_look[look(name)]) for name in only_here if look(name) in by_look]
    if pairs:
        alike = "; ".join("{} looks like {}".format(*told_apart(*pair)) for pair in pairs[:5])
        renamed = f" ({alike}, which is only there)"
    else:
        renamed = f" (and {some(only_train)} only there: is it the same under another name?)" if only_train else ""
    return f"{folder} has classes that {train} has not: {some(only_here)}{renamed}; rename or remove these folders"


def has_split(root: Path, split: str) -> bool:
    """Returns whether the folder of a split is there."""
    return any(is_folder(root / name) for name in SPLIT_FOLDERS[split])


def absent_splits(root: Path) -> list[str]:
    """Returns the paths of folders of splits that are not there: one that comes later may be another val."""
    paths = [os.path.join(root, name) for names in SPLIT_FOLDERS.values() for name in names]
    return [path for path in paths if not os.path.exists(path)]


def split_folder(root: Path, split: str) -> Path:
    """Returns the folder of a split.

    Raises:
        UserError: it is not there, and the text says what is; or it is there twice, under both names.
    """
    names = SPLIT_FOLDERS[split]
    found = [root / name for name in names if is_folder(root / name)]
    if len(found) > 1:
        raise UserError(f"data.root: {' and '.join(map(str, found))} both claim to be {split}; keep one")
    if found:
        return found[0]
    if not is_folder(root):
        if root.exists():
            raise UserError(f"data.root: {root} is a file; name the folder that holds train and val")
        missing = next(path for path in (root, *root.parents) if is_folder(path.parent))
        raise UserError(f"data.root: {root} does not exist; {_contents(missing.parent, missing.name)}")
    advice = f"; {HOW_TO_HOLD_OUT}" if split == "val" and has_split(root, "train") else ""
    raise UserError(f"data.root: {root} has no folder {' or '.join(names)}; {_contents(root, names[0])}{advice}")


def _contents(folder: Path, wanted: str) -> str:
    """Says which folders are there, and which of them resembles ``wanted``."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    near = difflib.get_close_matches(wanted, names, 1)
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "no folders"
    return f"{folder} holds {shown}" + (f"; did you mean {folder / near[0]}?" if near else "")


def _class_folders(folder: Path) -> dict[str, str]:
    """Returns the folders of classes by the classes' names, sorted: the same but for bytes that are no UTF-8."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{folder}: no folders of classes; expected {folder}/CLASS/IMAGE")
    folders = {as_text(name): name for name in names}
    if len(folders) < len(names):
        raise UserError(f"{folder}: two folders have one name, in different bytes: {some(list(map(ascii, names)))}")
    return folders


def _no_images(folder: Path, extensions: list[str], left_out: LeftOut) -> str:
    if denied := [where for where in left_out.denied if Path(where).is_relative_to(folder)]:
        return f"{folder}: no images in this class: {denied[0]} cannot be read: {left_out.denied[denied[0]]}"
    if links := [link for link in left_out.links if Path(link).is_relative_to(folder)]:
        where = f"{links[0]} is another class or holds this one, and is not followed: remove the link"
        return f"{folder}: no images in this class but those of a link: {where}"
    endings = Counter(Path(file).suffix or Path(file).name for file in sorted(files_below(folder, LeftOut(""))))
    found = ", ".join(f"{count} x {ending}" for ending, count in endings.most_common(3)) or "nothing"
    return (
        f"{folder}: no images in this class (found: {found}); add some ({', '.join(extensions)}), "
        "name other endings in data.extensions, or remove the folder"
    )
