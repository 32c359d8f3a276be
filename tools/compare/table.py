"""Runs as a table: to the terminal, as Markdown, as CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.run_folder.experiments import Run
from engine.text import csv_bytes, shortened
from tools.compare.rows import columns, differing

WIDEST = 40
"""Characters of a cell in the terminal."""
LARGE = ("parameters", "flops")
COSTS = {
    "parameters": "params",
    "flops": "FLOPs",
    "images_per_second": "img/s",
    "memory_gb": "GB",
    "hours": "hours",
    "restarts": "restarts",
}
"""Columns and how they are headed."""


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    key: str
    """Of :meth:`engine.run_folder.experiments.Run.row`."""
    heading: str


def shown_columns(runs: Sequence[Run]) -> list[Column]:
    """Returns what tells runs apart: state, settings that differ, best and last metrics, costs.

    Columns in which nothing stands are left out.
    """
    settings = differing(runs)
    ends = [key.rpartition(".")[2] for key in settings]
    short = [end if ends.count(end) == 1 else key for key, end in zip(settings, ends, strict=True)]
    metrics = list(dict.fromkeys(run.metric for run in runs if run.metric))
    wanted = [Column("experiment", "experiment"), Column("name", "name"), Column("state", "state")]
    wanted += [Column("epoch", "epoch"), *map(Column, settings, short)]
    for metric in metrics:
        wanted.append(Column(f"best.{metric}", f"best {metric}"))
    wanted.append(Column("best.epoch", "at epoch"))
    wanted += [Column(f"last.{metric}", f"last {metric}") for metric in metrics]
    wanted += [Column(f"test.{metric}", f"test {metric}") for metric in metrics]
    if "loss" not in metrics:
        wanted.append(Column("last.loss", "val loss"))
    wanted.append(Column("train.loss", "train loss"))
    wanted += [Column(key, heading) for key, heading in COSTS.items()]
    wanted.append(Column("problem", "problem"))
    rows = [run.row() for run in runs]
    return [column for column in wanted if any(row.get(column.key) not in (None, "") for row in rows)]


def cells(runs: Sequence[Run], shown: Sequence[Column]) -> list[list[str]]:
    """Returns the texts of a table, without its heading; runs of several folders under the paths that tell them."""
    names = place_names([run.path for run in runs])
    return [
        [names[number] if column.key == "experiment" else cell(column.key, row.get(column.key)) for column in shown]
        for number, row in enumerate(run.row() for run in runs)
    ]


def place_names(paths: Sequence[Path]) -> list[str]:
    """Returns the folders' own names, or, of several roots, their paths below what these have in common."""
    if len({path.parent for path in paths}) <= 1:
        return [path.name for path in paths]
    common = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def cell(key: str, value: Any) -> str:
    """Formats a value: four digits and a unit, as nobody reads more in a table."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return " ".join(str(value).split())
    if key in LARGE:
        size = next((factor for factor in (1e12, 1e9, 1e6, 1e3) if value >= factor), 1.0)
        return f"{value / size:.3g}{dict(zip((1e12, 1e9, 1e6, 1e3), 'TGMk', strict=True)).get(size, '')}"
    if key.partition(".")[0] in ("best", "last", "test", "train") and not key.endswith((".epoch", ".step")):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"
    if key in COSTS:
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def terminal(runs: Sequence[Run], width: int | None) -> str:
    """Formats the table; what is too wide for ``width`` characters is left out, and named below it."""
    shown = shown_columns(runs)
    rows = [[column.heading for column in shown], *cells(runs, shown)]
    rows = [[shortened(text, WIDEST) for text in row] for row in rows]
    sizes = [max(len(row[place]) for row in rows) for place in range(len(shown))]
    kept, left = _fitting([column.key for column in shown], sizes, width)
    lines = ["  ".join(row[place].ljust(sizes[place]) for place in kept).rstrip() for row in rows]
    states = [run.state for run in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines.append(f"{len(runs)} folders: {counts}")
    if left:
        lines.append(f"not wide enough for: {', '.join(shown[place].heading for place in left)} (--csv - has all)")
    return "\n".join(lines)


def _fitting(keys: Sequence[str], sizes: Sequence[int], width: int | None) -> tuple[list[int], list[int]]:
    """Returns which columns are shown and which are not, when the last ones but for the most telling give way."""
    kept = list(range(len(keys)))
    first = ("experiment", "state", "problem", *(key for key in keys if key.startswith("best.")))
    order = [place for place in reversed(kept) if keys[place] not in first]
    order += [place for place in reversed(kept) if keys[place] in first and keys[place] != "experiment"]
    left: list[int] = []
    while width is not None and order and sum(sizes[place] + 2 for place in kept) - 2 > width:
        left.append(order.pop(0))
        kept.remove(left[-1])
    return kept, sorted(left)


def as_csv(runs: Sequence[Run]) -> bytes:
    """Returns everything that is known of the runs, numbers with all their digits."""
    names = columns(runs)
    rows = [run.row() for run in runs]
    return csv_bytes(names, [[_plain(row.get(name)) for name in names] for row in rows])


def _plain(value: Any) -> Any:
    return "" if value is None else value
