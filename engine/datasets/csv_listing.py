"""The rows of CSV files that list images: what they say, before class names become numbers."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.csv_table import read_rows
from engine.data.index import Listed, listed
from engine.data.names import Names
from engine.datasets.sections import CsvData, CsvFiles
from engine.errors import UserError

SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""What a split column may say, in any case."""
NAMED = 5
"""Rows that a message names."""


class _Codes(dict[str, int]):
    """Numbers of different cells, in the order in which they are first asked for."""

    def __missing__(self, cell: str) -> int:
        code = self[cell] = len(self)
        return code


class Column:
    """The cells of a column: different ones, and which of these each row has."""

    def __init__(self, different: Iterable[str] = (), rows: Any = None) -> None:
        self._codes = _Codes({cell: code for code, cell in enumerate(different)})
        self._rows: Any = array("i") if rows is None else rows

    def append(self, cell: str) -> None:
        """Adds the cell of one more row."""
        self._rows.append(self._codes[cell])

    def renamed(self, name: Callable[[str], str]) -> Column:
        """Returns the column with other cells, ``name`` of each."""
        column = Column(dict.fromkeys(map(name, self.different)))
        codes = np.array([column._codes[name(cell)] for cell in self.different], np.int32)
        column._rows = codes[self.rows]
        return column

    @property
    def different(self) -> list[str]:
        """Returns the different cells, in the order in which they come first."""
        return list(self._codes)

    @property
    def rows(self) -> NDArray[np.int32]:
        """Returns each row's place in :attr:`different`, (N,)."""
        return np.frombuffer(self._rows, np.int32) if len(self._rows) else np.zeros(0, np.int32)

    def __getitem__(self, row: int) -> str:
        return self.different[self._rows[row]]


@dataclass(frozen=True)
class Listing:
    """What tables say of N images, column by column: with an object a row, reading would take several times as long."""

    files: list[Path]
    """The tables."""
    starts: list[int]
    """The first row of each."""
    lines: NDArray[np.int64]
    """(N,) where each row ends in its table."""
    paths: Names
    splits: Column
    labels: list[Column]
    """What each label column says."""
    swallowed: list[str] = field(default_factory=list)
    """FILE:LINE of rows that seem to have swallowed others."""

    def place(self, row: int) -> str:
        """Returns FILE:LINE of a row."""
        return f"{self.files[np.searchsorted(self.starts, row, side='right') - 1]}:{self.lines[row]}"

    def check(self, name: str, column: Column, fine: Callable[[str], bool], right: str) -> None:
        """Raises UserError if a column's cells are not as they should be, naming the first few."""
        faults = np.array([not fine(cell) for cell in column.different], bool)
        if faults.any():
            wrong = np.flatnonzero(faults[column.rows])
            raise _unfit([(self.place(row), name, column[row]) for row in wrong[:NAMED].tolist()], len(wrong), right)


def read_listing(config: CsvData) -> tuple[Listing, NDArray[np.int64]]:
    """Reads all tables: a row for each image, and the numbers of rows that count, not saying the same as earlier ones.

    Once for all splits: what they say is kept, see :func:`engine.data.index.listed`.

    Raises:
        UserError: a table or a column is missing, a row has no path, its split is unknown, or an image is listed
            twice, however its path is written, with different labels or for two splits.
    """
    keys = {"csv", "path_column", "label_columns", "split_column", "delimiter"}
    known = listed(
        config.root, ["table", config.model_dump(mode="json", include=keys)], lambda: _kept(*_read_tables(config))
    )
    arrays, facts = known.arrays, known.facts
    columns = [Column(own, arrays[f"column_{number}"]) for number, own in enumerate(facts["different"])]
    names, files = Names.of(arrays["content"], arrays["starts_of_names"]), [Path(file) for file in facts["files"]]
    listing = Listing(files, facts["starts"], arrays["lines"], names, columns[0], columns[1:], facts["swallowed"])
    return listing, arrays["counted"]


def _kept(listing: Listing, counted: NDArray[np.int64]) -> Listed:
    columns, files = [listing.splits, *listing.labels], [os.fspath(file) for file in listing.files]
    facts = {"files": files, "starts": listing.starts, "swallowed": listing.swallowed}
    arrays: dict[str, NDArray] = {"lines": listing.lines, "counted": counted, "content": listing.paths.content}
    arrays |= {"starts_of_names": listing.paths.starts}
    arrays |= {f"column_{number}": column.rows for number, column in enumerate(columns)}
    return Listed(arrays, {**facts, "different": [column.different for column in columns]}, files)


def _read_tables(config: CsvData) -> tuple[Listing, NDArray[np.int64]]:
    wanted = {"data.path_column": [config.path_column], "data.label_columns": config.label_columns}
    if isinstance(config.csv, CsvFiles):
        files = {"train": config.csv.train, "val": config.csv.val, "test": config.csv.test}
    else:
        files = {"train": config.csv}
        if config.split_column is not None:
            wanted["data.split_column"] = [config.split_column]
    lines, starts, swallowed = array("q"), list[int](), list[str]()
    splits, labels = Column(), [Column() for _ in config.label_columns]
    bad, hashes = list[tuple[str, str, str]](), array("q")
    root = os.path.join(os.path.normpath(config.root), "")
    tables = {split: file for split, file in files.items() if file is not None}

    def paths() -> Iterator[str]:
        """Notes all other cells on the way."""
        for split, file in tables.items():
            starts.append(len(lines))
            within = list[int]()
            for line, cells in read_rows(file, wanted, within, config.delimiter):
                path = place = cells[0]
                if not path or path[0] in "/." or path[-1] == "/" or "/." in path or "//" in path or "\0" in path:
                    path = path and os.path.normpath(path)
                    place = os.path.normpath(os.path.join(root, path)).removeprefix(root)
                    if not path or "\0" in path:
                        bad.append((f"{file}:{line}", config.path_column, path))
                        path = ""
                lines.append(line)
                hashes.append(hash(place))
                for column, cell in zip(labels, cells[1:], strict=False):
                    column.append(cell)
                splits.append(split if config.split_column is None else cells[-1])
                yield path
            swallowed.extend(f"{file}:{line}" for line in within)

    names = Names(paths())
    splits = splits.renamed(lambda cell: SPLITS.get(cell.lower(), cell))
    listing = Listing([*tables.values()], starts, np.frombuffer(lines, np.int64), names, splits, labels, swallowed)
    if bad:
        raise _unfit(bad[:NAMED], len(bad), "the path of an image")
    if config.split_column is not None:
        listing.check(config.split_column, splits, SPLITS.__contains__, "train, val (or validation) or test")
    return listing, _counted(listing, config, np.frombuffer(hashes, np.int64))


def _counted(listing: Listing, config: CsvData, hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the numbers of the rows that are the first of an image.

    Args:
        listing: The rows.
        config: What their columns are called.
        hashes: (N,) of the images' files.
    """
    ordered, counted = np.sort(hashes), np.ones(len(hashes), bool)
    repeated = np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]])
    columns = [("split", listing.splits), *zip(config.label_columns, listing.labels, strict=True)]
    first, conflicts, conflicting = dict[str, int](), list[str](), 0
    for row in np.flatnonzero(repeated).tolist():
        path = listing.paths[row]
        earlier = first.setdefault(os.path.normpath(os.path.join(config.root, path)), row)
        counted[row] = earlier == row
        different = [(name, column) for name, column in columns if column.rows[row] != column.rows[earlier]]
        conflicting += bool(different)
        if different and len(conflicts) < NAMED:
            name, column = different[-1]
            here, there = f"{listing.place(row)}: {path}", listing.place(earlier)
            conflicts.append(f"{here} has {name} '{column[row]}' here and '{column[earlier]}' in {there}")
    if conflicts:
        more = [f"and {conflicting - NAMED} more"] if conflicting > NAMED else []
        raise UserError("\n".join([*conflicts, *more, "list each image once, with all that it shows"]))
    return np.flatnonzero(counted)


def _unfit(rows: list[tuple[str, str, str]], count: int, right: str) -> UserError:
    """Names the first of ``count`` rows: place, column and cell."""
    lines = [f"{place}: {column}: must be {right}, not {cell!r}" for place, column, cell in rows]
    return UserError("\n".join([*lines, f"and {count - NAMED} more rows"] if count > NAMED else lines))
