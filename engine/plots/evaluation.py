"""Figures of an evaluation in any task: what is taken for what, and precision over recall.

Few classes are all named; of many, the telling ones are, and the rest is summed up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.plots.figures import new_figure, shown_name
from engine.plots.fonts import text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 40
"""Most classes that are all named in a figure."""
COUNTED = 20
"""Most classes with numbers in the cells of their confusion matrix."""
CONFUSED = 25
"""Of more than :data:`FEW`, so many classes are shown: those that are most often confused."""
BLOCKS = 50
"""Rows of the image of a whole matrix of many classes."""
CURVES = 6
"""Precision-recall curves that have a colour where there are more than twice as many."""
TITLE_INCHES = 3.4
"""Width that the title of a confusion matrix needs."""

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Recall and precision, point by point."""


def confusions(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Lists what was taken for what in a confusion matrix, the true class first; most frequent first."""
    true, said = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    order = np.argsort(-counts[true, said], kind="stable")
    return list(zip(true[order].tolist(), said[order].tolist(), strict=True))


def confusion_figure(
    counts: NDArray[np.int64], true: Sequence[str], said: Sequence[str], sizes: NDArray[np.int64], title: str
) -> Figure:
    """Draws the confusion matrix of C classes, rows as shares of their true class.

    Of many classes two: those that are most often confused, and all of them in blocks, from the largest to the
    smallest.

    Args:
        counts: row: what is true, column: what was said; behind the classes perhaps a row and column of none.
        true, said: names of the rows and of the columns.
        sizes: (C,), by which the blocks are ordered.
        title: of few classes at most :data:`TITLE_INCHES` wide.
    """
    count, size = len(sizes), len(counts)
    shown, none = list(range(size)), list(range(count, size))
    if many := count > FEW:
        pairs = confusions(counts)[: 2 * CONFUSED]
        most_confused = list(dict.fromkeys(c for pair in pairs for c in pair if c < count))  # side by side
        classes = (most_confused or shown)[:CONFUSED]
        shown = [*classes, *none]
        title = f"{title}: the {len(classes)} most confused of {count}"
    cells, rows, columns = counts[np.ix_(shown, shown)], [true[c] for c in shown], [said[c] for c in shown]
    if many:
        cells = np.column_stack([cells, counts[shown].sum(axis=1) - cells.sum(axis=1)])
        columns.append("(others)")
    margin = 0.5 + 0.07 * max(text_width(shown_name(name)) for name in [*rows, *columns])  # for names beside the axes
    wide, high = 0.3 * max(len(columns), 6), 0.3 * max(len(rows), 6)
    figure = new_figure(max(margin + wide + 0.3, TITLE_INCHES) + many * (high + 1.6), margin + high + 0.4, None)
    axes = _axes(figure, margin, margin, wide, high)
    figure.suptitle(title, x=0.25 if many else 0.5, y=1 - 0.12 / (margin + high + 0.4), va="top", fontsize=11)
    shares = _shares(cells)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(range(len(columns)), [shown_name(name) for name in columns], rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), [shown_name(name) for name in rows], fontsize=8)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="lightgray", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for row, column in zip(*np.nonzero(cells), strict=True) if many or count <= COUNTED else ():
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(cells[row, column]), ha="center", va="center", color=colour, fontsize=7)
    if many:
        place = np.argsort([*np.argsort(-sizes, kind="stable"), *none]) * BLOCKS // size
        summed = np.zeros((BLOCKS, BLOCKS))
        at = np.nonzero(counts)
        np.add.at(summed, (place[at[0]], place[at[1]]), counts[at])
        blocks = _axes(figure, margin + wide + 1.4, margin, high, high)
        blocks.imshow(_shares(summed), cmap="Blues", vmin=0, vmax=1, extent=(0, size, size, 0))
        blocks.set_title("All classes in blocks, the largest first", fontsize=11)
        blocks.set(xlabel="predicted", ylabel="true")
    return figure


def _shares(counts: NDArray) -> NDArray[np.float64]:
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Adds axes at a place and of a size in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def precision_recall_figure(
    title: str,
    classes: Sequence[str],
    precision: NDArray[np.float64],
    curve: Callable[[int], Curve],
    whole: tuple[str, Curve] | None,
    measure: str = "AP",
) -> Figure:
    """Draws precision over recall: of each class, in colour of many the best and the worst, and of all.

    Args:
        precision: average precision of each class, (C,); those that are NaN are not drawn.
        curve: makes the curve of a class, given its number.
        whole: name and curve of all classes together.
        measure: what ``precision`` is called.
    """
    figure = new_figure(9, 5.5)
    axes = figure.add_subplot(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    order = np.argsort(-precision, kind="stable")[: np.isfinite(precision).sum()]  # NaN comes last
    half = CURVES // 2
    named = order if len(order) <= 2 * CURVES else np.concatenate([order[:half], order[-half:]])
    for c in order[:: max(1, len(order) // 100)] if len(order) > len(named) else []:
        axes.plot(*curve(c), color="lightgray", linewidth=0.5)
    for c in named:
        axes.plot(*curve(c), linewidth=1.2, label=f"{shown_name(classes[c])} ({measure} {precision[c]:.3f})")
    if whole is not None:
        name, points = whole
        axes.plot(*points, color="black", linewidth=2, label=name)
    figure.legend(fontsize=8, loc="outside right upper")
    return figure
