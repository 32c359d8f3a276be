"""The rows of CSV files that list images: what they say, before class names become numbers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.datasets.csv_table import read_table
from engine.datasets.sections import CsvData, CsvFiles
from engine.errors import UserError

SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""What a split column may say, in any case."""
NAMED = 5
"""Rows that a message names."""


@dataclass(frozen=True)
class Listing:
    """What tables say of images, column by column: with an object a row, reading them would take twice as long."""

    files: list[Path]
    """The table of each row."""
    lines: list[int]
    """Where the row ends in it."""
    paths: list[str]
    splits: list[str]
    labels: list[list[str]]
    """The cells of each label column."""
    swallowed: list[str] = field(default_factory=list)
    """FILE:LINE of rows that seem to have swallowed others."""

    def place(self, row: int) -> str:
        """Returns FILE:LINE of a row."""
        return f"{self.files[row]}:{self.lines[row]}"

    def chosen(self, rows: list[int]) -> Listing:
        """Returns some of the rows."""

        def of(column: list[Any]) -> list[Any]:
            return [column[row] for row in rows]

        return Listing(
            of(self.files), of(self.lines), of(self.paths), of(self.splits), [*map(of, self.labels)], self.swallowed
        )

    def check(self, column: str, cells: list[str], fine: Callable[[str], bool], right: str) -> None:
        """Raises UserError if a column's cells, one a row, are not as they should be, naming the first few."""
        wrong = [row for row, cell in enumerate(cells) if not fine(cell)]
        if wrong:
            lines = [f"{self.place(row)}: {column}: must be {right}, not {cells[row]!r}" for row in wrong[:NAMED]]
            raise UserError("\n".join([*lines, f"and {len(wrong) - NAMED} more rows"] if len(wrong) > NAMED else lines))


def read_listing(config: CsvData) -> tuple[Listing, int]:
    """Reads all tables: a row for each image, and the number of rows left out, since they say the same as others.

    Raises:
        UserError: a table or a column is missing, a row has no path, its split is unknown, or an image is listed
            twice, however its path is written, with different labels or for two splits.
    """
    wanted = {"data.path_column": [config.path_column], "data.label_columns": config.label_columns}
    if isinstance(config.csv, CsvFiles):
        files = {"train": config.csv.train, "val": config.csv.val, "test": config.csv.test}
    else:
        files = {"train": config.csv}
        if config.split_column is not None:
            wanted["data.split_column"] = [config.split_column]
    listing = Listing([], [], [], [], [[] for _ in config.label_columns])
    for split, file in files.items():
        if file is not None:
            table = read_table(file, wanted, config.delimiter)
            said = table.columns.get(config.split_column or "", [split] * len(table))
            listing.files.extend([file] * len(table))
            listing.lines.extend(table.lines)
            listing.swallowed.extend(f"{file}:{line}" for line in table.swallowed)
            listing.paths.extend(path and os.path.normpath(path) for path in table.columns[config.path_column])
            listing.splits.extend(SPLITS.get(cell.lower(), cell) for cell in said)
            for cells, name in zip(listing.labels, config.label_columns, strict=True):
                cells.extend(table.columns[name])
    right = "the path of an image"
    listing.check(config.path_column, listing.paths, lambda path: bool(path) and "\0" not in path, right)
    if config.split_column is not None:
        right = "train, val (or validation) or test"
        listing.check(config.split_column, listing.splits, SPLITS.__contains__, right)
    first: dict[str, int] = {}
    labels = zip(config.label_columns, listing.labels, strict=True)
    columns, conflicts = [("split", listing.splits), *labels], []
    for row, path in enumerate(listing.paths):
        earlier = first.setdefault(os.path.normpath(os.path.join(config.root, path)), row)
        different = [(name, cells) for name, cells in columns if cells[row] != cells[earlier]] if earlier < row else []
        if different:
            name, cells = different[-1]
            here, there = f"{listing.place(row)}: {path}", listing.place(earlier)
            conflicts.append(f"{here} has {name} '{cells[row]}' here and '{cells[earlier]}' in {there}")
    if conflicts:
        more = [f"and {len(conflicts) - NAMED} more"] if len(conflicts) > NAMED else []
        raise UserError("\n".join([*conflicts[:NAMED], *more, "list each image once, with all that it shows"]))
    repeated = len(listing.paths) - len(first)
    return listing.chosen(list(first.values())) if repeated else listing, repeated
