"""Reading CSV files whose columns somebody has named."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import UserError
from engine.files import other_than_file


@dataclass(frozen=True)
class Table:
    """Some columns of a CSV file."""

    columns: dict[str, list[str]]
    """Values of each column, without spaces around them."""
    lines: list[int]
    """Where each row ends in the file."""
    swallowed: list[int] = field(default_factory=list)
    """Where rows end in which a cell in quotes reads like several rows, as after a quote that nobody has closed."""

    def __len__(self) -> int:
        return len(self.lines)


def read_table(
    file: Path,
    wanted: Mapping[str, Sequence[str]],
    delimiter: str = ",",
    source: str = "data.csv",
    delimiter_key: str = "data.delimiter",
) -> Table:
    """Reads the wanted columns of a table, see :func:`read_rows`."""
    table = Table({name: [] for names in wanted.values() for name in names}, [], [])
    columns = list(table.columns.values())
    for line, cells in read_rows(file, wanted, table.swallowed, delimiter, source, delimiter_key):
        table.lines.append(line)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    return table


def read_rows(
    file: Path,
    wanted: Mapping[str, Sequence[str]],
    swallowed: list[int],
    delimiter: str = ",",
    source: str = "data.csv",
    delimiter_key: str = "data.delimiter",
) -> Iterator[tuple[int, list[str]]]:
    """Reads a CSV file in UTF-8 with a header line, without blank lines and byte-order mark, row by row.

    Yields where each row ends in the file, and its cells of the wanted columns without spaces around them.

    Args:
        wanted: configuration keys, each with the names of columns that it asks for, in whose order cells come.
        swallowed: is given what :attr:`Table.swallowed` says.
        source: the configuration key or option that names the file.
        delimiter_key: that which names the delimiter.

    Raises:
        UserError: the file is missing, empty or no CSV, lacks a column, or has a row of another length than its header.
    """
    before = rows = 0
    try:
        if kind := other_than_file(file):
            raise UserError(f"{source}: {file} is {kind}; name a CSV file")
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise UserError(f"{source}: {file} is empty; its first line is to name the columns")
            places = [_place(file, key, name, header, delimiter_key) for key, names in wanted.items() for name in names]
            before = reader.line_num
            for row in reader:
                line = reader.line_num
                spans, before = line - before, line
                if not row:
                    continue
                if len(row) != len(header):
                    raise UserError(
                        f"{file}:{line}: {len(row)} values, but the header names {len(header)} columns; "
                        'a value with a comma, quote or line break in it stands in quotes ("...")'
                    )
                if spans > 1 and any(_reads_like_rows(cell, delimiter, len(header)) for cell in row):
                    swallowed.append(line)
                rows += 1
                yield line, [row[place].strip() for place in places]
    except FileNotFoundError:
        raise UserError(f"{source}: {file} does not exist{_nearest(file)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: {file} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        quote = "; a quote that begins here, or after, is never closed" if "end of data" in str(error) else ""
        raise UserError(f"{file}:{before + 1}: not CSV ({error}){quote}") from None
    except OSError as error:
        raise UserError(f"{source}: {file} cannot be read: {error.strerror or error}") from None
    if not rows:
        raise UserError(f"{source}: {file} has a header and no rows")


def _reads_like_rows(cell: str, delimiter: str, columns: int) -> bool:
    """Whether a cell has line breaks, and as many delimiters as rows with these would have between them."""
    breaks = len(cell.splitlines()) - 1
    return breaks > 0 and cell.count(delimiter) >= breaks * (columns - 1)


def _place(file: Path, key: str, name: str, header: list[str], delimiter_key: str) -> int:
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        raise UserError(f"{key}: {file} has {header.count(name)} columns called '{name}'; rename all but one")
    near = difflib.get_close_matches(name, header, 1) or [other for other in header if other.lower() == name.lower()]
    hint = f"; did you mean '{near[0]}'?" if near else ""
    shown = ", ".join(header[:10]) + (", ..." if len(header) > 10 else "")
    other = next((mark for mark in ";\t|," if len(header) == 1 and mark in header[0]), None)
    separated = f"; if {other!r} separates the columns, set {delimiter_key}" if other is not None else ""
    raise UserError(f"{key}: {file} has no column '{name}' (it has: {shown}){hint}{separated}")


def _nearest(file: Path) -> str:
    if not file.parent.is_dir():
        return f"; nor does its folder {file.parent}"
    names = sorted(path.name for path in file.parent.iterdir() if path.is_file())
    near = difflib.get_close_matches(file.name, names, 1)
    return f"; did you mean {file.parent / near[0]}?" if near else ""
