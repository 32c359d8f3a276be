"""Curves of any number of runs as one figure: seeds of one configuration averaged, with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from engine.images.image_io import write_image
from engine.plots.figures import as_image, new_figure, shown_name
from engine.run_folder.experiments import Run
from tools.compare.rows import groups, labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = ("epochs", "steps", "hours")
NAMED = 16
"""Groups that the legend names; more would cover the curves."""
POINTS = 200
"""At which curves of several runs are averaged."""


class Band(NamedTuple):
    """Mean of a metric over runs, and its standard deviation; (P,) each."""

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


def write_plot(runs: Sequence[Run], file: Path, metrics: Sequence[str], over: str) -> None:
    """Draws ``metrics``, such as ``val.top1``, a panel each, over ``epochs``, ``steps`` or ``hours``.

    Raises:
        UserError: no run has such a metric, or the file cannot be written.
    """
    chosen = metrics or usual_metrics(runs)
    known = list(dict.fromkeys(name for run in runs for name in run.lines))
    if unknown := [name for name in chosen if name not in known]:
        raise UserError(f"--metrics: no run has '{unknown[0]}'; there are {', '.join(known) or 'none'}")
    if not chosen:
        raise UserError("--plot: nothing was measured in these runs yet")
    parts = [part for part in groups(runs) if any(name in run.lines for run in part for name in chosen)]
    columns = min(2, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = new_figure(6.4 * columns, 4.2 * rows + min(len(parts), NAMED) * 0.18)
    for place, (name, axes) in enumerate(zip(chosen, figure.subplots(rows, columns, squeeze=False).flat, strict=False)):
        _panel(axes, parts, name, over, legend=place == 0)
    for axes in figure.axes[len(chosen) :]:
        axes.remove()
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(fontsize=7, loc="outside lower center", ncols=2)
    try:
        write_image(file, as_image(figure))
    except OSError as error:
        raise UserError(f"--plot {file}: cannot be written: {error.strerror or error}") from None


def usual_metrics(runs: Sequence[Run]) -> list[str]:
    """Returns the losses, and what decides which evaluation is best; those that any run has."""
    deciding = [f"val.{run.metric}" for run in runs]
    wanted = dict.fromkeys(["train.loss", "val.loss", *deciding])
    return [name for name in wanted if any(name in run.lines for run in runs)]


def _panel(axes: Axes, parts: Sequence[Sequence[Run]], name: str, over: str, legend: bool) -> None:
    for number, (part, label) in enumerate(zip(parts, labels(parts), strict=True)):
        band = band_of(part, name, over)
        if band is None:
            continue
        named = shown_name(label) if legend and number < NAMED else None
        (line,) = axes.plot(band.x, band.mean, linewidth=1.2, label=named, color=f"C{number % 10}")
        if len(part) > 1:
            low, high = band.mean - band.spread, band.mean + band.spread
            axes.fill_between(band.x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(title=name, xlabel=over)
    axes.grid(alpha=0.3)


def band_of(part: Sequence[Run], name: str, over: str) -> Band | None:
    """Returns mean and spread of a metric over the runs that have it, where all of these have values.

    One run keeps its own points; None if none has any.
    """
    curves = []
    for run in part:
        if (line := run.lines.get(name)) is not None:
            x = np.array([np.nan if value is None else value for value in getattr(line, over)], float)
            y = np.array([np.nan if value is None else value for value in line.values], float)
            there = np.isfinite(x) & np.isfinite(y)
            if there.any():
                curves.append((x[there], y[there]))
    if not curves:
        return None
    if len(curves) == 1:
        return Band(*curves[0], np.zeros_like(curves[0][1]))
    begin, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if end < begin:
        return None
    same = all(len(x) == len(curves[0][0]) and (x == curves[0][0]).all() for x, _ in curves)
    grid = curves[0][0] if same else np.linspace(begin, end, POINTS)
    values = np.stack([np.interp(grid, x, y) for x, y in curves])
    return Band(grid, values.mean(axis=0), values.std(axis=0, ddof=1))
