"""The rows of CSV files that list images: what they say, before class names become numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.datasets.csv_table import read_table
from engine.datasets.sections import CsvData, CsvFiles
from engine.errors import UserError

SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""What a split column may say, in any case."""
NAMED = 5
"""Rows that a message names."""


class Row(NamedTuple):
    """What a table says of an image."""

    file: Path
    """The table."""
    line: int
    """Where the row ends in it."""
    path: str
    split: str
    labels: tuple[str, ...]
    """The cells of the label columns."""

    @property
    def place(self) -> str:
        """Returns FILE:LINE."""
        return f"{self.file}:{self.line}"


def check_cells(rows: Sequence[Row], column: str, cells: list[str], fine: Callable[[str], bool], right: str) -> None:
    """Raises UserError if a column's cells, one a row, are not as they should be, naming the first few."""
    wrong = [(row, cell) for row, cell in zip(rows, cells, strict=True) if not fine(cell)]
    if wrong:
        lines = [f"{row.place}: {column}: must be {right}, not '{cell}'" for row, cell in wrong[:NAMED]]
        raise UserError("\n".join([*lines, f"and {len(wrong) - NAMED} more rows"] if len(wrong) > NAMED else lines))


def read_listing(config: CsvData) -> tuple[list[Row], int]:
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
    rows: list[Row] = []
    for split, file in files.items():
        if file is not None:
            table = read_table(file, wanted, config.delimiter)
            splits = table.columns.get(config.split_column or "", [split] * len(table))
            labels = zip(*(table.columns[name] for name in config.label_columns), strict=True)
            cells = zip(table.lines, table.columns[config.path_column], splits, labels, strict=True)
            rows += [Row(file, *row) for row in cells]
    check_cells(rows, config.path_column, [row.path for row in rows], bool, "the path of an image")
    right = "train, val (or validation) or test"
    said = [row.split for row in rows]
    check_cells(rows, config.split_column or "split", said, lambda cell: cell.lower() in SPLITS, right)
    rows = [row._replace(path=os.path.normpath(row.path), split=SPLITS[row.split.lower()]) for row in rows]
    first: dict[str, Row] = {}
    columns, conflicts = ("split", *config.label_columns), []
    for row in rows:
        earlier = first.setdefault(os.path.normpath(os.path.join(config.root, row.path)), row)
        said_twice = zip(columns, (earlier.split, *earlier.labels), (row.split, *row.labels), strict=True)
        if different := [(name, before, after) for name, before, after in said_twice if before != after]:
            name, before, after = different[-1]
            conflicts.append(f"{row.place}: {row.path} has {name} '{after}' here and '{before}' in {earlier.place}")
    if conflicts:
        more = [f"and {len(conflicts) - NAMED} more"] if len(conflicts) > NAMED else []
        raise UserError("\n".join([*conflicts[:NAMED], *more, "list each image once, with all that it shows"]))
    return list(first.values()), len(rows) - len(first)
