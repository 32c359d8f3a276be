"""Which pictures a command line names: files, folders, and tables of paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.datasets.class_folders import files_below
from engine.datasets.csv_table import read_table
from engine.datasets.sections import FolderData
from engine.errors import UserError

ENDINGS = tuple(FolderData.model_fields["extensions"].default)
"""Of files in folders that are taken for pictures; a file that is named by itself may have any."""


def listed_pictures(
    images: Sequence[str], path_column: str, root: Path, delimiter: str = ","
) -> list[tuple[str, Path]]:
    """Returns each image's name, as the user may write it, and its file; in the order given, folders' sorted.

    Args:
        images: files, folders (with all below them, but for hidden ones), and .csv files.
        path_column: of the .csv files.
        root: what relative paths in .csv files start from.
        delimiter: what separates their columns.

    Raises:
        UserError: something is not there, a row has no path, or there are no pictures. Files that a table lists are not
            looked for.
    """
    found = [picture for text in images for picture in _pictures(text, path_column, root, delimiter)]
    if not found:
        raise UserError(f"--images: no pictures ({', '.join(ENDINGS)}) in {', '.join(images)}")
    return found


def _pictures(text: str, path_column: str, root: Path, delimiter: str) -> Iterator[tuple[str, Path]]:
    path = Path(text)
    if path.is_dir():
        for name in sorted(name for name in files_below(path) if name.lower().endswith(ENDINGS)):
            yield os.path.join(text, name), path / name
    elif not path.exists():
        raise UserError(f"--images: no file or folder {text}")
    elif path.suffix.lower() == ".csv":
        wanted = {"--path-column": [path_column]}
        table = read_table(path, wanted, delimiter, source="--images", delimiter_key="--delimiter")
        for line, name in zip(table.lines, table.columns[path_column], strict=True):
            if not name:
                raise UserError(f"{path}:{line}: {path_column}: must be the path of a picture, not ''")
            yield name, root / name
    else:
        yield text, path
