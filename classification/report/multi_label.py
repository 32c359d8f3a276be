"""What the evaluation of a model of several labels an image leaves in results/<split>/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classification.metrics.by_class_size import by_size_multilabel, size_bins
from classification.metrics.multi_label import multilabel_per_class
from classification.metrics.names import MULTILABEL_METRICS, TUNED_METRICS
from classification.metrics.predictions import MultiLabelPredictions
from classification.report.mistakes import SHOWN, mistakes_sheet, worst_mistakes, wrong_labels
from classification.report.parts import (
    Counts,
    Origin,
    class_rows,
    curves_part,
    size_part,
    summary,
    write_class_table,
    write_metrics,
    write_size_table,
)
from classification.report.plots import classes_figure, precision_recall_figure
from engine.datasets.labelled import LabelledImages
from engine.files import write_atomic
from engine.images.image_io import ImageArray, write_image
from engine.plots.curves import write_curves
from engine.plots.figures import as_image, write_figure
from engine.text import csv_bytes, markdown_table

ON_BOARD = 12
"""Mistakes that TensorBoard shows."""
BOARD_DOTS_PER_INCH = 70

Thresholds = NDArray[np.float64]


def write_multilabel_report(
    folder: Path, origin: Origin, metrics: dict[str, float], predictions: MultiLabelPredictions, thresholds: Thresholds
) -> None:
    """Writes metrics.json, report.md, tables as CSV and figures as PNG into ``folder``.

    Args:
        metrics: those of the predictions, to which the groups of classes are added.
        thresholds: (C,), by which the tables and the mistakes decide what is said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images, settings = origin.images, origin.settings
    classes = images.classes
    table = multilabel_per_class(predictions, thresholds)
    sizes: list[dict[str, Any]] = []
    if origin.train_counts is not None:
        sizes = by_size_multilabel(size_bins(settings.size_bins, origin.train_counts), predictions, table)
        table = {"train_images": origin.train_counts, **table}
    mistakes = worst_mistakes(predictions, thresholds, SHOWN)
    write_metrics(folder, metrics, sizes)
    write_class_table(folder, table, classes)
    write_atomic(folder / "predictions.csv", csv_bytes(*_prediction_table(predictions, thresholds, images)))
    average_precision = table["average_precision"]
    write_figure(folder / "precision_recall.png", precision_recall_figure(predictions, average_precision, classes))
    figure = classes_figure(average_precision, table["support"], classes, origin.train_counts, "average precision")
    write_figure(folder / "per_class.png", figure)
    if sizes:
        write_size_table(folder, sizes, "mAP")
    if len(mistakes):
        write_image(folder / "worst_mistakes.png", mistakes_sheet(mistakes, predictions, thresholds, images))
    curves = write_curves(origin.history, folder / "curves.png", {**MULTILABEL_METRICS, **TUNED_METRICS})
    parts = [
        f"# {origin.title}",
        summary(len(predictions.labels), classes, settings) + " An image may have any number of labels.",
        *_overall_part(metrics),
        *size_part(sizes),
        *_class_part(table, classes),
        *_mistakes_part(mistakes, predictions, thresholds, images),
        *curves_part(curves),
    ]
    write_atomic(folder / "report.md", "\n\n".join(parts).encode(errors="replace") + b"\n")


def multilabel_board_images(
    predictions: MultiLabelPredictions, images: LabelledImages, thresholds: Thresholds, train_counts: Counts
) -> dict[str, ImageArray]:
    """What TensorBoard shows of an evaluation during training."""
    table = multilabel_per_class(predictions, thresholds)
    values = table["average_precision"], table["support"]
    figure = classes_figure(*values, images.classes, train_counts, "average precision")
    drawn = {"per_class": as_image(figure, BOARD_DOTS_PER_INCH)}
    mistakes = worst_mistakes(predictions, thresholds, ON_BOARD)
    if len(mistakes):
        drawn["worst_mistakes"] = mistakes_sheet(mistakes, predictions, thresholds, images)
    return drawn


def _overall_part(metrics: dict[str, float]) -> list[str]:
    """Each metric once, with its value at tuned thresholds beside it where it has one."""
    plain = [name for name in metrics if not name.endswith("_tuned")]
    if len(plain) == len(metrics):
        return [markdown_table(("metric", "value"), [(name, f"{metrics[name]:.4f}") for name in plain])]
    tuned = [f"{metrics[f'{name}_tuned']:.4f}" if f"{name}_tuned" in metrics else "" for name in plain]
    rows = [(name, f"{metrics[name]:.4f}", value) for name, value in zip(plain, tuned, strict=True)]
    note = "Thresholds are tuned on val: on val itself, the last column flatters the model."
    return [markdown_table(("metric", "at threshold 0.5", "at tuned thresholds"), rows), note]


def _class_part(table: dict[str, NDArray], classes: list[str]) -> list[str]:
    figures = ["![Average precision of each class](per_class.png)", "![Precision and recall](precision_recall.png)"]
    return ["## Classes", *class_rows(table, classes), *figures]


def _mistakes_part(
    mistakes: NDArray[np.int64], predictions: MultiLabelPredictions, thresholds: Thresholds, images: LabelledImages
) -> list[str]:
    if not len(mistakes):
        return ["## Worst mistakes", "None: all labels of all images are right."]
    rows = []
    for place, i in enumerate(mistakes, start=1):
        missed, wrong = (
            ", ".join(f"{images.classes[c]} {predictions.probabilities[i, c]:.3f}" for c in numbers)
            for numbers in wrong_labels(predictions, i, thresholds)
        )
        rows.append((place, images.name(int(i)), missed, wrong, f"{predictions.losses[i]:.3f}"))
    table = markdown_table(("", "image", "missed", "said wrongly", "loss"), rows)
    text = "Images of the largest loss with a wrong label, each label with its probability."
    return ["## Worst mistakes", text, "![Worst mistakes](worst_mistakes.png)", table]


def _prediction_table(
    predictions: MultiLabelPredictions, thresholds: Thresholds, images: LabelledImages
) -> tuple[list[str], list[list[Any]]]:
    """Of each image its true and its said classes, joined by ``|``, its loss, and each class's probability."""
    classes = images.classes
    rows = []
    for index, (labels, values, loss) in enumerate(
        zip(predictions.labels, predictions.probabilities, predictions.losses, strict=True)
    ):
        true, said = ("|".join(classes[c] for c in np.flatnonzero(chosen)) for chosen in (labels, values >= thresholds))
        rows.append([images.name(index), true, said, repr(float(loss)), *map(repr, values.tolist())])
    return ["image", "true", "predicted", "loss", *(f"probability_{name}" for name in classes)], rows
