"""Figures of a report. Few classes are all named; of many, the telling ones are, and the rest is summed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from classification.metrics.calibration import Calibration
from classification.metrics.predictions import MultiLabelPredictions
from engine.plots.evaluation import FEW, Curve, precision_recall_figure
from engine.plots.figures import new_figure, shown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXTREMES = 15
"""Best and worst classes that are named where there are many."""
MOST_DOTS = 400
"""Points of a precision-recall curve, about."""


def reliability_figure(found: Calibration) -> Figure:
    """Draws the reliability diagram, over how many images have which probability."""
    figure = new_figure(5.6, 6)
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
        figure = new_figure(7, 1.4 + 0.24 * max(len(order), 3))
        _bars(figure.add_subplot(title=f"{what} of each class"), values, support, classes, order)
        return figure
    figure = new_figure(14, 8.5)
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
    figure = new_figure(1.6 + 1.3 * max(len(rows), 3), 4)
    axes = figure.add_subplot(title=f"{name} by training images of the class")
    bars = axes.bar(range(len(rows)), [row[name] or 0 for row in rows], color="tab:blue")
    texts = ["no images" if row[name] is None else f"{row[name]:.3f}" for row in rows]
    axes.bar_label(bars, texts, padding=2, fontsize=8)
    labels = [f"{row['train_images']}\n{row['classes']} classes" for row in rows]
    axes.set_xticks(range(len(rows)), labels, fontsize=8)
    axes.set(xlabel="training images of a class", ylabel=name, ylim=(0, 1.08))
    return figure


def multilabel_curves(
    predictions: MultiLabelPredictions, average_precision: NDArray[np.float64], classes: Sequence[str]
) -> Figure:
    """Draws precision over recall: of the classes that occur, and of all labels together."""
    labels, probabilities = predictions.labels, predictions.probabilities
    whole = None
    if np.isfinite(probabilities).all():
        whole = ("all labels together", _curve(labels.ravel(), probabilities.ravel()))
    precision = np.where(labels.any(axis=0), average_precision, np.nan)
    title = "Precision and recall over all thresholds"
    return precision_recall_figure(
        title, classes, precision, lambda c: _curve(labels[:, c], probabilities[:, c]), whole
    )


def _curve(labels: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> Curve:
    """Recall and precision, at most some hundred points of them."""
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    step = max(1, len(recall) // MOST_DOTS)
    return np.append(recall[:-1:step], recall[-1]), np.append(precision[:-1:step], precision[-1])
