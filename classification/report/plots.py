"""Figures of a report. Few classes are all named; of many, the telling ones are, and the rest is summed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from classification.metrics.calibration import Calibration
from classification.metrics.predictions import MultiLabelPredictions
from classification.metrics.single_label import confusions
from engine.plots.figures import shown_name
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
EXTREMES = 15
"""Best and worst classes that are named where there are many."""
CURVES = 6
"""Precision-recall curves that are drawn by themselves."""
MOST_DOTS = 400
TITLE_INCHES = 3.4
"""Width that the title of a confusion matrix needs."""


def confusion_figure(counts: NDArray[np.int64], classes: Sequence[str], train_counts: NDArray[np.int64]) -> Figure:
    """Draws the confusion matrix (C, C), rows as shares of their true class.

    Of many classes two: those that are most often confused, and all of them in blocks, from those with most training
    images to those with fewest.
    """
    if len(classes) > FEW:
        return _many_confusions(counts, classes, train_counts)
    side, margin = 0.3 * max(len(classes), 6), _margin(classes)
    width = max(side + margin + 0.3, TITLE_INCHES)
    figure = _figure(width, side + margin + 0.4, None)
    axes = _axes(figure, margin, margin, side, side)
    figure.suptitle("Confusion (share of the true class)", fontsize=11, y=1 - 0.12 / (side + margin + 0.4), va="top")
    _matrix(axes, counts, classes, classes, numbers=len(classes) <= COUNTED)
    return figure


def _many_confusions(counts: NDArray[np.int64], classes: Sequence[str], train_counts: NDArray[np.int64]) -> Figure:
    most_confused = dict.fromkeys(c for pair in confusions(counts)[: 2 * CONFUSED] for c in pair)  # side by side
    worst = np.array(list(most_confused)[:CONFUSED] or range(CONFUSED))
    others = counts[worst].sum(axis=1) - counts[np.ix_(worst, worst)].sum(axis=1)
    names = [classes[c] for c in worst]
    side, margin = 0.3 * len(worst), _margin([*names, "(others)"])
    figure = _figure(margin + 2 * side + 2.2, margin + side + 0.5, None)
    left = _axes(figure, margin, margin, side + 0.3, side)
    _matrix(left, np.column_stack([counts[np.ix_(worst, worst)], others]), names, [*names, "(others)"], numbers=True)
    left.set_title(f"{len(worst)} of {len(classes)} classes: the most frequent confusions", fontsize=11)
    right = _axes(figure, margin + side + 1.4, margin, side, side)
    place = np.argsort(np.argsort(-train_counts, kind="stable")) * BLOCKS // len(classes)
    summed = np.zeros((BLOCKS, BLOCKS))
    rows, columns = np.nonzero(counts)
    np.add.at(summed, (place[rows], place[columns]), counts[rows, columns])
    right.imshow(_shares(summed), cmap="Blues", vmin=0, vmax=1, extent=(0, len(classes), len(classes), 0))
    right.set_title("All classes in blocks, those with most training images first", fontsize=11)
    right.set(xlabel="predicted", ylabel="true")
    return figure


def _matrix(
    axes: Axes, counts: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], *, numbers: bool
) -> None:
    shares = _shares(counts)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(range(len(columns)), [shown_name(name) for name in columns], rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), [shown_name(name) for name in rows], fontsize=8)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="lightgray", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    if numbers:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=7)


def _shares(counts: NDArray) -> NDArray[np.float64]:
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def reliability_figure(found: Calibration) -> Figure:
    """Draws the reliability diagram, over how many images have which probability."""
    figure = _figure(5.6, 6)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    bars: dict[str, Any] = {"x": found.edges[:-1], "width": float(found.edges[1]), "align": "edge"}
    said, right = np.nan_to_num(found.confidence), np.nan_to_num(found.accuracy)
    upper.bar(height=right, **bars, edgecolor="white", label="accuracy")
    gap: dict[str, Any] = {"facecolor": "none", "edgecolor": "tab:red", "hatch": "///", "linewidth": 0}
    upper.bar(height=said - right, bottom=right, **bars, **gap, label="gap to the mean probability")
    upper.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="perfectly calibrated")
    upper.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1), title=f"Calibration: expected error {found.error:.3f}")
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)  # where it covers no bar
    lower.bar(height=found.counts, **bars, edgecolor="white", color="tab:gray")
    lower.set(xlabel="probability of the predicted class", ylabel="images")
    return figure


def classes_figure(
    values: NDArray[np.float64],
    support: NDArray[np.int64],
    classes: Sequence[str],
    train_counts: NDArray[np.int64],
    what: str,
) -> Figure:
    """Draws ``values`` (C,) in [0, 1] of the classes that have images, named or, of many, the best and the worst.

    Many classes are also shown as a curve from worst to best, and over their training images.
    """
    order = np.flatnonzero(support)[np.argsort(values[support > 0], kind="stable")]
    worst, best = (extremes(values, support, sign)[:EXTREMES] for sign in (1, -1))
    if len(order) <= FEW:
        figure = _figure(7, 1.4 + 0.24 * max(len(order), 3))
        _bars(figure.add_subplot(title=f"{what} of each class"), values, support, classes, order)
        return figure
    figure = _figure(14, 8.5)
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.1))
    curve = figure.add_subplot(grid[0, 0], title=f"{what} of all {len(order)} classes with images, worst to best")
    curve.fill_between(np.arange(len(order)), values[order], alpha=0.3, step="mid")
    curve.plot(values[order], linewidth=1.5)
    curve.axhline(values[order].mean(), color="black", linestyle="--", linewidth=1, label="mean")
    curve.set(xlabel="classes", ylabel=what, ylim=(-0.02, 1.02))
    curve.legend(fontsize=8)
    below = figure.add_subplot(grid[1, 0])
    below.plot(np.maximum(train_counts[order], 1), values[order], ".", alpha=0.4)
    below.set(title="By training images", xlabel="training images of the class", ylabel=what, xscale="log")
    below.set_ylim(-0.03, 1.03)
    named = np.concatenate([worst, best[::-1]])
    bars = figure.add_subplot(grid[:, 1], title=f"{what}: the {EXTREMES} worst and the {EXTREMES} best classes")
    _bars(bars, values, support, classes, named)
    bars.axhline(EXTREMES - 0.5, color="black", linewidth=1)
    return figure


def extremes(values: NDArray[np.float64], support: NDArray[np.int64], sign: int) -> NDArray[np.int64]:
    """Orders classes with images, the worst (``sign`` 1) or the best (-1) first, of equals those with most images."""
    there = np.flatnonzero(support)
    return there[np.lexsort((-support[there], sign * values[there]))]


def _bars(
    axes: Axes, values: NDArray, support: NDArray[np.int64], classes: Sequence[str], order: NDArray[np.int64]
) -> None:
    bars = axes.barh(range(len(order)), values[order], color="tab:blue")
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=7)
    labels = [f"{shown_name(classes[c])} ({support[c]})" for c in order]
    axes.set_yticks(range(len(order)), labels, fontsize=8)
    axes.set(xlim=(0, 1.08), ylim=(-0.6, max(len(order), 1) - 0.4), ylabel="class (images)")


def sizes_figure(rows: Sequence[dict[str, Any]], name: str) -> Figure:
    """Draws the metric ``name`` of each group of classes, see :func:`classification.metrics.by_class_size.by_size`."""
    figure = _figure(1.6 + 1.3 * max(len(rows), 3), 4)
    axes = figure.add_subplot(title=f"{name} by training images of the class")
    bars = axes.bar(range(len(rows)), [row[name] or 0 for row in rows], color="tab:blue")
    texts = ["no images" if row[name] is None else f"{row[name]:.3f}" for row in rows]
    axes.bar_label(bars, texts, padding=2, fontsize=8)
    labels = [f"{row['train_images']}\n{row['classes']} classes" for row in rows]
    axes.set_xticks(range(len(rows)), labels, fontsize=8)
    axes.set(xlabel="training images of a class", ylabel=name, ylim=(0, 1.08))
    return figure


def precision_recall_figure(
    predictions: MultiLabelPredictions, average_precision: NDArray[np.float64], classes: Sequence[str]
) -> Figure:
    """Draws precision over recall: of all labels together, and of the classes; of many six in colour."""
    figure = _figure(7.5, 6)
    axes = figure.add_subplot(title="Precision and recall over all thresholds")
    there = np.flatnonzero(predictions.labels.any(axis=0) & np.isfinite(average_precision))
    order = there[np.argsort(-average_precision[there], kind="stable")]
    half = CURVES // 2
    named = order if len(order) <= 2 * CURVES else np.concatenate([order[:half], order[-half:]])
    for c in order[:: max(1, len(order) // 100)] if len(order) > len(named) else []:
        axes.plot(*_curve(predictions.labels[:, c], predictions.probabilities[:, c]), color="lightgray", linewidth=0.5)
    for c in named:
        label = f"{shown_name(classes[c])} (AP {average_precision[c]:.3f})"
        axes.plot(*_curve(predictions.labels[:, c], predictions.probabilities[:, c]), linewidth=1.2, label=label)
    if np.isfinite(predictions.probabilities).all():
        pooled = _curve(predictions.labels.ravel(), predictions.probabilities.ravel())
        axes.plot(*pooled, color="black", linewidth=2, label="all labels together")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    return figure


def _curve(labels: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Recall and precision, at most some hundred points of them."""
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    step = max(1, len(recall) // MOST_DOTS)
    return np.append(recall[:-1:step], recall[-1]), np.append(precision[:-1:step], precision[-1])


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Makes a figure of a size in inches.

    Without a layout its axes are placed by :func:`_axes`: quicker by far than to have matplotlib find room for labels.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Adds axes at a place and of a size in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _margin(names: Sequence[str]) -> float:
    """Returns the inches that names beside or below an axis need."""
    return 0.5 + 0.07 * max(text_width(shown_name(name)) for name in names)
