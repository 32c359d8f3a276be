"""Training curves: what metrics.jsonl holds, as one figure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.images.image_io import write_image
from engine.plots.figures import as_image, new_figure
from engine.run_folder.metrics import MEASURED, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 500
"""Points of a line; of a longer one, so many means of neighbours are drawn."""
COLUMNS = 4
NOT_DRAWN = {"step", "epoch", "split", "skipped_steps", *MEASURED}
"""Where and how fast a run was is in its README and in TensorBoard."""
COLOURS = {"train": "tab:gray", "val": "tab:blue", "test": "tab:green"}
STYLES = {"train": ":", "val": "-", "test": "--"}
"""Where a panel has several metrics: they differ in colour, and their splits in this."""

MANY_LINES = 3
"""In a panel of more the legend needs a place of its own."""

Records = Sequence[Mapping[str, Any]]
Directions = Mapping[str, Any]


def write_curves(metrics: Path, image: Path, directions: Directions) -> bool:
    """Draws the file ``metrics`` into ``image``, a PNG file; returns whether there was anything to draw.

    ``directions``: ``max`` or ``min`` of each metric whose best value is to be named.

    Raises:
        OSError: the image cannot be written.
        UserError: the metrics cannot be read.
    """
    records = read_metrics(metrics) if metrics.is_file() else []
    figure = draw_curves(records, directions)
    if figure is not None:
        write_image(image, as_image(figure))
    return figure is not None


def draw_curves(records: Records, directions: Directions) -> Figure | None:
    """Draws a panel for each metric, or for those whose names begin alike, over epochs; None if none was measured.

    Evaluations from outside the run (with a ``source``) are left out. A value that is null leaves a gap.
    """
    own = [record for record in records if "source" not in record]
    names = sorted({name for record in own for name in record} - NOT_DRAWN)
    # Losses come first, the optimizer's numbers last.
    panels = grouped(sorted(names, key=lambda name: (name in ("lr", "grad_norm"), "loss" not in name)))
    if not panels:
        return None
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width, height = 3.6 * columns + 0.2, 2.7 * rows + 0.3
    figure = new_figure(width, height, None)
    figure.subplots_adjust(0.6 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.3 / height, wspace=0.22, hspace=0.3)
    for place, (title, members) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        _draw_panel(axes, title, members, own, directions)
        if place > len(panels) - columns:
            axes.set_xlabel("epoch")
    return figure


def grouped(names: Sequence[str]) -> dict[str, list[str]]:
    """Groups metrics into panels, by the words that they all begin with: ``f1_macro`` and ``f1_micro`` share ``f1``."""
    panels: dict[str, list[str]] = {}
    for name in names:
        alike = [other for other in names if other.partition("_")[0] == name.partition("_")[0]]
        words = zip(*(other.split("_") for other in alike), strict=False)
        shared = itertools.takewhile(lambda word: len(set(word)) == 1, words)
        panels["_".join(word[0] for word in shared)] = alike
    return panels


def line(records: Records, split: str, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns epochs and values of a metric, at most :data:`MOST_POINTS`; a value that is missing or null is NaN."""
    there = [record for record in records if record["split"] == split and name in record]
    epochs = np.array([record.get("epoch", record["step"]) for record in there], float)
    values = np.array([np.nan if record[name] is None else record[name] for record in there], float)
    size = -(-len(values) // MOST_POINTS)
    return (_block_means(epochs, size), _block_means(values, size)) if size > 1 else (epochs, values)


def _block_means(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Means of the finite ones among every ``size`` values, the last of what is left; NaN if there are none."""
    starts = np.arange(0, len(values), size)
    finite = np.isfinite(values)
    counts = np.add.reduceat(finite.astype(float), starts)
    sums = np.add.reduceat(np.where(finite, values, 0.0), starts)
    return np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)


def _draw_panel(axes: Axes, title: str, members: Sequence[str], records: Records, directions: Directions) -> None:
    best = ""
    alone = len(members) == 1
    for number, name in enumerate(members):
        for split in COLOURS:
            epochs, values = line(records, split, name)
            if not len(values):
                continue
            label = split if alone else f"{split} {name[len(title) :].lstrip('_')}"
            marker = "." if np.isfinite(values).sum() <= 30 else ""
            colour, style = (COLOURS[split], "-") if alone else (f"C{number}", STYLES[split])
            axes.plot(epochs, values, style, marker=marker, color=colour, label=label, linewidth=1.2)
            direction = directions.get(name)
            if split != "train" and alone and direction is not None and np.isfinite(values).any():
                best = f" (best {(np.nanmin if direction == 'min' else np.nanmax)(values):.4g})"
    axes.set_title(title + best, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.ticklabel_format(axis="y", scilimits=(-2, 4))  # long numbers would run into the panel on the left
    axes.yaxis.get_offset_text().set_fontsize(8)
    axes.grid(alpha=0.3)
    if (lines := len(axes.get_lines())) > MANY_LINES:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + (high - low) * 0.08 * (lines + 2) / 2)  # the legend stands above the curves
        axes.legend(fontsize=6.5, ncols=2, loc="upper center")
    else:
        axes.legend(fontsize=7)
