"""Texts for people and programs: Markdown and CSV tables, names cut to length."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 28
"""Characters of a name in a figure; longer ones lose their middle."""


def markdown_table(heading: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Formats rows as a Markdown table, without a line end after the last row."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(plain(cell) for cell in line) + " |" for line in lines)


def plain(value: Any) -> str:
    """Formats a value as text that neither ends a table's cell nor begins HTML."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def csv_bytes(heading: Sequence[Any], rows: Iterable[Sequence[Any]]) -> bytes:
    """Formats rows as CSV (RFC 4180, with plain newlines) in UTF-8; file names that are not keep their bytes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return buffer.getvalue().encode(errors="surrogateescape")


def shortened(text: str, length: int) -> str:
    """Returns ``text``, or its beginning and end where it has more than ``length`` characters."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"
