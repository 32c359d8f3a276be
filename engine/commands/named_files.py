"""Which images a command line names: files, folders, and tables of paths."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.csv_table import read_table
from engine.datasets.sections import FolderData
from engine.errors import UserError
from engine.files import is_file, is_folder
from engine.images.file_names import locate
from engine.images.folder_listing import LeftOut, files_below

log = logging.getLogger(__name__)

ENDINGS = tuple(FolderData.model_fields["extensions"].default)
"""Of files in folders that are taken for images; a file that is named by itself may have any."""
DETECTIONS, DRAWINGS = "detections.json", "images"
"""A file, and the folder beside it, that a prediction leaves which draws what it has found: no images to look at."""


def find_images(images: Sequence[str], path_column: str, root: Path, delimiter: str = ",") -> list[tuple[str, Path]]:
    """Returns each image's name, as the user may write it, and its file; in the order given, folders' sorted.

    Links are followed; those that lead nowhere count as images, so that reading tells of them. Left out, with a line in
    the log, are hidden files and folders, folders that cannot be read, files of other kinds, and drawings. A file that
    is named or found several times counts once, but each row of a table counts.

    Args:
        images: files, folders (with all below them), and .csv files.
        path_column: of the .csv files.
        root: what relative paths in .csv files start from.
        delimiter: what separates their columns.

    Raises:
        UserError: something is not there or cannot be read, a row has no path, or there are no images. Files that a
            table lists may be missing.
    """
    found: list[tuple[str, Path]] = []
    once: set[Path] = set()
    for text in images:
        if not text:  # as of a shell's variable that is not set
            raise UserError("--images: '' names nothing; this folder is .")
        path = Path(text)
        if path.suffix.lower() == ".csv" and is_file(path):
            found += _listed(path, path_column, root, delimiter)
            continue
        named = [(text, path)]
        if is_folder(path):
            named = [(os.path.join(text, name), path / name) for name in _images_below(path)]
        elif not path.exists():
            near = locate([path.name], path.parent).near(0)
            raise UserError(f"--images: there is no file or folder {text}{near}")
        found += [(name, file) for name, file in named if file not in once]
        once |= {file for _, file in named}
    if not found:
        raise UserError(f"--images: no images ({', '.join(ENDINGS)}) in {', '.join(images)}")
    return found


def _listed(table: Path, path_column: str, root: Path, delimiter: str) -> Iterator[tuple[str, Path]]:
    wanted = {"--path-column": [path_column]}
    content = read_table(table, wanted, delimiter, source="--images", delimiter_key="--delimiter")
    names = content.columns[path_column]
    for line, name in zip(content.lines, names, strict=True):
        if not name or "\0" in name:
            raise UserError(f"{table}:{line}: {path_column}: must be the path of an image, not {name!r}")
    if content.swallowed:
        text = "--images: %s:%d: a cell in quotes reads like rows of its own; is a quote not closed?"
        log.warning(text, table, content.swallowed[0])
    found = locate(names, root)
    if found.spelt:
        log.warning("--images: %s: %d images %s", table, len(found.spelt), found.told())
    yield from ((name, root / found.spelt.get(name, name)) for name in names)


def _images_below(folder: Path) -> list[str]:
    """Paths below ``folder``, folder by folder."""
    left_out = LeftOut("--images")
    names = sorted(files_below(folder, left_out), key=lambda name: name.split(os.sep))
    if why := left_out.denied.get(os.fspath(folder)):
        raise UserError(f"--images: {folder} cannot be read: {why}")
    beside = {os.path.dirname(name) for name in names if os.path.basename(name) == DETECTIONS}
    drawings = [os.path.join(place, DRAWINGS, "") for place in sorted(beside) if (folder / place / DRAWINGS).is_dir()]
    names = [name for name in names if not name.startswith(tuple(drawings))]
    chosen = left_out.images(folder, names, ENDINGS)
    files = [name for name in chosen if _is_file(folder / name)]
    for name in sorted(set(chosen) - set(files)):
        left_out.add(folder, name)
    left_out.tell("name these files themselves, which may have any ending")
    if drawings:
        told = f"folders {DRAWINGS} beside a {DETECTIONS}, which predict has drawn, left out; the first:"
        log.info("--images: %d %s %s", len(drawings), told, folder / drawings[0])
    return files


def _is_file(file: Path) -> bool:
    """Returns whether ``file`` is one, or a link that leads nowhere: no pipe or the like."""
    return os.path.isfile(file) or not os.path.exists(file)
