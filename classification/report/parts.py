"""What the reports of one label an image and of several share: each part writes its files, and returns its lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from classification.metrics.by_class_size import by_size, size_bins
from classification.metrics.predictions import AnyPredictions, Predictions
from classification.metrics.sections import ClassificationEvaluationConfig
from classification.report.mistakes import Thresholds, mistakes_sheet, worst_mistakes, wrong_labels
from classification.report.plots import classes_figure, extremes, sizes_figure
from engine.datasets.labelled import LabelledImages
from engine.files import write_atomic
from engine.images.image_io import ImageArray, write_image
from engine.plots.curves import write_curves
from engine.plots.figures import as_image
from engine.text import csv_bytes, markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LISTED = 20
"""Classes that report.md lists: all if there are no more, else the best and the worst halves of this number."""
MISTAKES, ON_BOARD = 24, 12
"""Mistakes on a report's sheet, and those that TensorBoard shows."""
BOARD_DOTS_PER_INCH = 70

Counts = NDArray[np.int64]
Table = dict[str, NDArray]
"""Metrics of each class, by their names: (C,) each."""


@dataclass(frozen=True)
class Report:
    """What a report is about, and the folder of its files."""

    folder: Path
    title: str
    images: LabelledImages
    """Those that were evaluated."""
    train_counts: Counts
    """Training images of each class, (C,)."""
    settings: ClassificationEvaluationConfig
    history: Path
    """The run's metrics.jsonl."""

    def csv(self, name: str, heading: Sequence[Any], rows: Iterable[Sequence[Any]]) -> None:
        """Writes a table."""
        write_atomic(self.folder / name, csv_bytes(heading, rows))

    def figure(self, name: str, figure: Figure, caption: str) -> str:
        """Draws ``figure`` into ``name``.png, and returns the line that shows it."""
        write_image(self.folder / f"{name}.png", as_image(figure))
        return f"![{caption}]({name}.png)"

    def write(self, parts: Iterable[str]) -> None:
        """Writes report.md: title, number of images, and ``parts``."""
        mirrored = "; each is also mirrored, and the two probabilities averaged" if self.settings.tta == "flip" else ""
        several = " An image may have any number of labels." if self.images.multi_label else ""
        summary = f"{len(self.images)} images of {len(self.images.classes)} classes{mirrored}.{several}"
        text = "\n\n".join([f"# {self.title}", summary, *parts])
        write_atomic(self.folder / "report.md", text.encode(errors="replace") + b"\n")


def metrics_part(
    report: Report, metrics: Mapping[str, float], predictions: AnyPredictions, table: Table, drawn: str
) -> list[str]:
    """Reports metrics, and those of classes by their number of training images, of which ``drawn`` is drawn.

    Each metric is shown once, with its value at tuned thresholds beside it where it has one. What is not finite, as of
    a model that has diverged, is null in metrics.json.
    """
    sizes = by_size(size_bins(report.settings.size_bins, report.train_counts), predictions, table)
    values = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    write_atomic(report.folder / "metrics.json", json.dumps({**values, "size_bins": sizes}, indent=2) + "\n")
    shown = {name: f"{value:.4f}" for name, value in metrics.items()}
    plain = [name for name in shown if not name.endswith("_tuned")]
    if len(plain) == len(shown):
        parts = [markdown_table(("metric", "value"), shown.items())]
    else:
        rows = [(name, shown[name], shown.get(f"{name}_tuned", "")) for name in plain]
        note = "Thresholds are tuned on val: on val itself, the last column flatters the model."
        parts = [markdown_table(("metric", "at threshold 0.5", "at tuned thresholds"), rows), note]
    report.csv("size_bins.csv", list(sizes[0]), [list(row.values()) for row in sizes])
    line = report.figure("size_bins", sizes_figure(sizes, drawn), "By training images")
    return [*parts, "## By training images of a class", _values_table(sizes[0], map(dict.values, sizes)), line]


def class_part(report: Report, table: Table, column: str, name: str) -> list[str]:
    """Reports each class; ``column`` of the table is drawn, and called ``name``.

    The text lists classes by F1: of many the best and the worst.
    """
    classes = report.images.classes
    best, worst = (extremes(table["f1"], table["support"], sign) for sign in (-1, 1))
    text, order = "From best to worst by F1.", best
    if len(best) > LISTED:
        half = LISTED // 2
        text = f"The best and the worst {half} of {len(best)} by F1; all are in [per_class.csv](per_class.csv)."
        order = np.concatenate([best[:half], worst[:half][::-1]])
    if without := len(classes) - len(best):
        text += f" {without} classes have no images here."
    figure = classes_figure(table[column], table["support"], classes, report.train_counts, name)
    table = {"train_images": report.train_counts, **table}
    rows = [[label, *(values[i].item() for values in table.values())] for i, label in enumerate(classes)]
    report.csv("per_class.csv", ["class", *table], rows)
    line = report.figure("per_class", figure, f"{name.capitalize()} of each class")
    return ["## Classes", text, _values_table(["class", *table], [rows[i] for i in order]), line]


def mistakes_part(report: Report, predictions: AnyPredictions, thresholds: Thresholds | None) -> list[str]:
    """Reports the worst mistakes, in words and as a sheet."""
    images, found = report.images, worst_mistakes(predictions, thresholds, MISTAKES)
    if isinstance(predictions, Predictions):
        right = "images are classified rightly"
        text = "Wrong predictions of the highest probability: hard images, or wrong labels."
        heading = ("true", "predicted", "probability")
        said = ((predictions.labels[i], predictions.top[i, 0], predictions.probabilities[i, 0]) for i in found)
        cells = [(images.classes[true], images.classes[top], f"{value:.4f}") for true, top, value in said]
    else:
        right = "labels of all images are right"
        text = "Images of the largest loss with a wrong label, each label with its probability."
        heading = ("missed", "said wrongly", "loss")
        wrong = (wrong_labels(predictions, i, thresholds, images.classes, digits=3) for i in found)
        cells = [(*names, f"{predictions.losses[i]:.3f}") for i, names in zip(found, wrong, strict=True)]
    if not found:
        return ["## Worst mistakes", f"None: all {right}."]
    write_image(report.folder / "worst_mistakes.png", mistakes_sheet(found, predictions, thresholds, images))
    rows = [(place, images.name(i), *own) for place, (i, own) in enumerate(zip(found, cells, strict=True), start=1)]
    table = markdown_table(("", "image", *heading), rows)
    return ["## Worst mistakes", text, "![Worst mistakes](worst_mistakes.png)", table]


def curves_part(report: Report, directions: Mapping[str, Any]) -> list[str]:
    """Reports how the run went, if that is known; ``directions`` as for :func:`engine.plots.curves.write_curves`."""
    drawn = write_curves(report.history, report.folder / "curves.png", directions)
    return ["## Training curves", "![Training curves](curves.png)"] if drawn else []


def board(
    name: str, figure: Figure, predictions: AnyPredictions, thresholds: Thresholds | None, images: LabelledImages
) -> dict[str, ImageArray]:
    """Draws what TensorBoard shows of an evaluation during training: ``figure``, and the worst mistakes if any."""
    drawn = {name: as_image(figure, BOARD_DOTS_PER_INCH)}
    if mistakes := worst_mistakes(predictions, thresholds, ON_BOARD):
        drawn["worst_mistakes"] = mistakes_sheet(mistakes, predictions, thresholds, images)
    return drawn


def _values_table(heading: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    shown = [["" if v is None else f"{v:.3f}" if isinstance(v, float) else v for v in row] for row in rows]
    return markdown_table([name.replace("_", " ") for name in heading], shown)
