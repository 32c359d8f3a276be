"""Runs as one page that opens without a server: a table that sorts and filters, curves, images, and differences."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from engine.run_folder.experiments import Run
from tools.compare.pictures import pictures
from tools.compare.plot import usual_metrics
from tools.compare.rows import differing, is_more_better
from tools.compare.table import cell, place_names, shown_columns

TEMPLATE = Path(__file__).with_name("page.html")
MOST_NUMBERS = 300_000
"""Values of all curves together."""
MOST_METRICS = 12
FEWEST_POINTS, MOST_POINTS = 12, 200
"""Of a curve."""


def page(runs: Sequence[Run], statements: Sequence[str]) -> str:
    """Returns the page as HTML, with style, script and images inside it.

    Whatever stands in folders' names and settings is shown as text, as the script makes no HTML of it.
    """
    content = json.dumps(content_of(runs, statements), allow_nan=False).replace("<", "\\u003c")
    title = html.escape(f"{len(runs)} folders of experiments")
    return TEMPLATE.read_text(encoding="utf-8").replace("{{title}}", title).replace("{{content}}", content)


def content_of(runs: Sequence[Run], statements: Sequence[str]) -> dict[str, Any]:
    """Returns what the page's script shows: columns, rows, curves, images, and the settings that differ."""
    shown = shown_columns(runs)
    rows = [run.row() for run in runs]
    names = place_names([run.path for run in runs])
    metrics = _metrics(runs)
    points = MOST_NUMBERS // max(1, 2 * len(runs) * len(metrics))
    points = min(MOST_POINTS, max(FEWEST_POINTS, points))
    keys = differing(runs)
    return {
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "statements": list(statements),
        "columns": [
            {"key": column.key, "heading": column.heading, "more": is_more_better(column.key, runs)} for column in shown
        ],
        "rows": [
            {
                "name": names[number],
                "state": run.state,
                "values": [_plain(rows[number].get(column.key)) for column in shown],
                "texts": [
                    names[number] if column.key == "experiment" else cell(column.key, rows[number].get(column.key))
                    for column in shown
                ],
                "settings": [_plain(run.settings.get(key)) for key in keys],
                "lines": {name: _line(run, name, points) for name in metrics if name in run.lines},
            }
            for number, run in enumerate(runs)
        ],
        "settings": keys,
        "metrics": metrics,
        "first_metrics": [name for name in usual_metrics(runs) if name in metrics],
        "pictures": pictures(runs),
    }


def _metrics(runs: Sequence[Run]) -> list[str]:
    """Returns the metrics whose curves are shown: what decides, losses, rate, and what most runs have."""
    counts: dict[str, int] = {}
    for run in runs:
        for name in run.lines:
            counts[name] = counts.get(name, 0) + 1
    usual = [*usual_metrics(runs), "train.lr", "train.grad_norm", "train.images_per_second"]
    others = sorted(counts, key=lambda name: (not name.startswith("val."), -counts[name]))
    return [name for name in dict.fromkeys([*usual, *others]) if name in counts][:MOST_METRICS]


def _line(run: Run, name: str, points: int) -> dict[str, list[Any]]:
    """Returns steps, epochs, hours and values of a curve, at even distances, and its last point."""
    line = run.lines[name]
    places = list(range(0, len(line.values), -(-len(line.values) // points)))
    if places[-1] != len(line.values) - 1:
        places.append(len(line.values) - 1)
    columns: dict[str, list[Any]] = {
        "steps": line.steps,
        "epochs": line.epochs,
        "hours": line.hours,
        "values": line.values,
    }
    return {key: [_rounded(column[place]) for place in places] for key, column in columns.items()}


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.5g}") if value is not None and isfinite(value) else None


def _plain(value: Any) -> Any:
    """Returns what JSON can say: infinities as text."""
    return str(value) if isinstance(value, float) and not isfinite(value) else value
