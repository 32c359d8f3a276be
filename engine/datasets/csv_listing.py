"""The rows of CSV files that list images: what they say, before class names become numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.datasets.csv_table import read_table
from engine.datasets.sections import CsvData, CsvFiles
from engine.errors import UserError

SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""What a split column may say, in any case."""
NAMED = 5
"""Rows that a message names."""


@dataclass(frozen=True)
class Listing:
    """All rows of all tables."""

    paths: list[str]
    splits: NDArray[np.str_]
    """train, val or test for each row."""
    columns: list[str]
    """Names of the label columns."""
    cells: list[list[str]]
    """Their values, column by column."""
    files: list[Path]
    """The tables."""
    origins: NDArray[np.int64]
    """Number of each row's table."""
    lines: NDArray[np.int64]
    """Where each row ends in its table."""
    repeated: int = 0
    """Rows that were left out, since they say the same as others."""

    def place(self, row: int) -> str:
        """Returns FILE:LINE of a row."""
        return f"{self.files[self.origins[row]]}:{self.lines[row]}"

    def chosen(self, rows: NDArray[np.int64]) -> Listing:
        """Returns some of the rows."""
        paths, cells = [self.paths[row] for row in rows], [[column[row] for row in rows] for column in self.cells]
        return Listing(paths, self.splits[rows], self.columns, cells, self.files, self.origins[rows], self.lines[rows])

    def check(self, column: str, cells: list[str], fine: Callable[[str], bool], right: str) -> None:
        """Raises UserError if a cell of a column is not as it should be, naming the first few."""
        wrong = [row for row, cell in enumerate(cells) if not fine(cell)]
        if wrong:
            lines = [f"{self.place(row)}: {column}: must be {right}, not '{cells[row]}'" for row in wrong[:NAMED]]
            raise UserError("\n".join([*lines, f"and {len(wrong) - NAMED} more rows"] if len(wrong) > NAMED else lines))


def read_listing(config: CsvData) -> Listing:
    """Reads all rows, each image once.

    Raises:
        UserError: a table or a column is missing, a row has no path, its split is unknown, or rows contradict each
            other.
    """
    wanted = {"data.path_column": [config.path_column], "data.label_columns": config.label_columns}
    if isinstance(config.csv, CsvFiles):
        given = {"train": config.csv.train, "val": config.csv.val, "test": config.csv.test}
        files = {split: file for split, file in given.items() if file is not None}
    else:
        files = {"train": config.csv}
        if config.split_column is not None:
            wanted["data.split_column"] = [config.split_column]
    tables = [read_table(file, wanted, config.delimiter) for file in files.values()]
    sizes = [len(table) for table in tables]
    listing = Listing(
        [path for table in tables for path in table.columns[config.path_column]],
        np.repeat(list(files), sizes),
        config.label_columns,
        [[cell for table in tables for cell in table.columns[name]] for name in config.label_columns],
        list(files.values()),
        np.repeat(np.arange(len(tables)), sizes),
        np.concatenate([table.lines for table in tables]),
    )
    listing.check(config.path_column, listing.paths, bool, "the path of an image")
    listing = replace(listing, paths=[os.path.normpath(path) for path in listing.paths])
    if config.split_column is not None:
        said = tables[0].columns[config.split_column]
        right = "train, val (or validation) or test"
        listing.check(config.split_column, said, lambda cell: cell.lower() in SPLITS, right)
        listing = replace(listing, splits=np.array([SPLITS[cell.lower()] for cell in said]))
    return _without_repetitions(listing, config.root)


def _without_repetitions(listing: Listing, root: Path) -> Listing:
    """Keeps each image once, however its path from ``root`` is written.

    Raises:
        UserError: an image is listed twice with different labels, or for two splits.
    """
    first: dict[str, int] = {}
    labels = zip(listing.columns, listing.cells, strict=True)
    columns: list[tuple[str, Sequence[str]]] = [("split", listing.splits.tolist()), *labels]
    kept, conflicts = [], []
    for row, path in enumerate(listing.paths):
        earlier = first.setdefault(os.path.normpath(os.path.join(root, path)), row)
        if earlier == row:
            kept.append(row)
            continue
        different = [(name, cells[earlier], cells[row]) for name, cells in columns if cells[earlier] != cells[row]]
        if different:
            name, before, after = different[-1]
            place = listing.place(earlier)
            conflicts.append(f"{listing.place(row)}: {path} has {name} '{after}' here and '{before}' in {place}")
    if conflicts:
        more = [f"and {len(conflicts) - NAMED} more"] if len(conflicts) > NAMED else []
        raise UserError("\n".join([*conflicts[:NAMED], *more, "list each image once, with all that it shows"]))
    if len(kept) == len(listing.paths):
        return listing
    return replace(listing.chosen(np.array(kept)), repeated=len(listing.paths) - len(kept))
