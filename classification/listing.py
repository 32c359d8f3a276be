"""The rows of CSV files that list pictures: what they say, before class names become numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classification.data_config import CsvData, CsvFiles
from classification.tables import Table, read_table
from engine.errors import UserError

log = logging.getLogger(__name__)

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
    places: list[str]
    """FILE:LINE of each row."""

    def chosen(self, rows: NDArray[np.int64]) -> Listing:
        """Some of the rows."""
        cells = [[column[row] for row in rows] for column in self.cells]
        paths, places = ([values[row] for row in rows] for values in (self.paths, self.places))
        return Listing(paths, self.splits[rows], self.columns, cells, places)


def read_listing(config: CsvData) -> Listing:
    """All rows, each picture once.

    Raises:
        UserError: a table or a column is missing, a cell is empty that must not be, a split is unknown, or rows
            contradict each other.
    """
    return _without_repetitions(_read(config))


def _read(config: CsvData) -> Listing:
    wanted = {"path_column": [config.path_column], "label_columns": config.label_columns}
    if isinstance(config.csv, CsvFiles):
        given = {"train": config.csv.train, "val": config.csv.val, "test": config.csv.test}
        files = {split: file for split, file in given.items() if file is not None}
        tables = {split: read_table(file, wanted, config.delimiter) for split, file in files.items()}
        splits = np.repeat(list(tables), [len(table) for table in tables.values()])
    else:
        if config.split_column is not None:
            wanted["split_column"] = [config.split_column]
        table = read_table(config.csv, wanted, config.delimiter)
        tables = {"": table}
        splits = np.full(len(table), "train") if config.split_column is None else _splits(table, config.split_column)
    places = [f"{table.file}:{line}" for table in tables.values() for line in table.lines]
    cells = [[cell for table in tables.values() for cell in table.columns[name]] for name in config.label_columns]
    paths = [path for table in tables.values() for path in table.columns[config.path_column]]
    check_cells(config.path_column, places, paths, bool, "the path of a picture")
    return Listing([os.path.normpath(path) for path in paths], splits, config.label_columns, cells, places)


def _splits(table: Table, column: str) -> NDArray[np.str_]:
    places, said = [f"{table.file}:{line}" for line in table.lines], table.columns[column]
    check_cells(column, places, said, lambda cell: cell.lower() in SPLITS, "train, val (or validation) or test")
    return np.array([SPLITS[cell.lower()] for cell in said])


def _without_repetitions(listing: Listing) -> Listing:
    """Each picture once.

    Raises:
        UserError: a picture is listed twice with different labels, or for two splits.
    """
    first: dict[str, int] = {}
    kept, repeated, conflicts = [], 0, []
    for row, path in enumerate(listing.paths):
        earlier = first.setdefault(path, row)
        if earlier == row:
            kept.append(row)
            continue
        columns = zip(listing.columns, listing.cells, strict=True)
        said = {name: (column[earlier], column[row]) for name, column in columns}
        said["split"] = (str(listing.splits[earlier]), str(listing.splits[row]))
        different = [(name, *values) for name, values in said.items() if values[0] != values[1]]
        if different:
            name, before, after = different[0]
            place = listing.places[earlier]
            conflicts.append(f"{listing.places[row]}: {path} has {name} '{after}' here and '{before}' in {place}")
        repeated += 1
    if conflicts:
        more = f"\nand {len(conflicts) - NAMED} more" if len(conflicts) > NAMED else ""
        raise UserError("\n".join(conflicts[:NAMED]) + f"{more}\nlist each picture once, with all that it shows")
    if repeated:
        log.warning("data.csv: %d rows repeat others and count once", repeated)
    return listing.chosen(np.array(kept)) if repeated else listing


def check_cells(column: str, places: list[str], cells: list[str], fine: Callable[[str], bool], right: str) -> None:
    """Raises UserError if a cell of a column is not as it should be, naming the first few."""
    wrong = [row for row, cell in enumerate(cells) if not fine(cell)]
    if wrong:
        lines = [f"{places[row]}: {column}: must be {right}, not '{cells[row]}'" for row in wrong[:NAMED]]
        raise UserError("\n".join([*lines, f"and {len(wrong) - NAMED} more rows"] if len(wrong) > NAMED else lines))
