"""What the evaluation of a model of one label an image leaves in results/<split>/: numbers, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classification.metrics.by_class_size import by_size, size_bins
from classification.metrics.calibration import Calibration, calibration
from classification.metrics.names import METRICS
from classification.metrics.predictions import Predictions
from classification.metrics.single_label import confusion, per_class
from classification.report.mistakes import SHOWN, mistakes_sheet, worst_mistakes
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
from classification.report.plots import classes_figure, confusion_figure, reliability_figure
from engine.datasets.labelled import LabelledImages
from engine.files import write_atomic
from engine.images.image_io import ImageArray, write_image
from engine.plots.curves import write_curves
from engine.plots.figures import as_image, write_figure
from engine.text import csv_bytes, markdown_table

CONFUSIONS = 15
"""Confusions that report.md lists."""
ON_BOARD = 12
"""Mistakes that TensorBoard shows."""
BOARD_DOTS_PER_INCH = 70


def write_report(folder: Path, origin: Origin, metrics: dict[str, float], predictions: Predictions) -> None:
    """Writes metrics.json, report.md, tables as CSV and figures as PNG into ``folder``.

    ``metrics``: those of the predictions, to which the calibration error and the groups of classes are added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images, settings = origin.images, origin.settings
    classes = images.classes
    counts = confusion(predictions, len(classes))
    table = per_class(counts)
    if origin.train_counts is not None:
        table = {"train_images": origin.train_counts, **table}
    found = calibrated(predictions, settings.calibration_bins)
    sizes = sizes_of(predictions, table["recall"], origin.train_counts, settings.size_bins)
    mistakes = worst_mistakes(predictions, None, SHOWN)
    whole = {**metrics, "ece": found.error}
    write_metrics(folder, whole, sizes)
    write_class_table(folder, table, classes)
    write_atomic(folder / "confusion_matrix.csv", _matrix_csv(counts, classes))
    write_atomic(folder / "confusions.csv", csv_bytes(["true", "predicted", "images"], _confusions(counts, classes)))
    write_atomic(folder / "predictions.csv", csv_bytes(*_prediction_table(predictions, images)))
    write_atomic(folder / "calibration.csv", _calibration_csv(found))
    write_figure(folder / "confusion_matrix.png", confusion_figure(counts, classes, origin.train_counts))
    write_figure(folder / "reliability.png", reliability_figure(found))
    values = table["recall"], table["support"]
    write_figure(folder / "per_class.png", classes_figure(*values, classes, origin.train_counts, "accuracy"))
    if sizes:
        write_size_table(folder, sizes, "top1")
    if len(mistakes):
        write_image(folder / "worst_mistakes.png", mistakes_sheet(mistakes, predictions, None, images))
    curves = write_curves(origin.history, folder / "curves.png", METRICS)
    parts = [
        f"# {origin.title}",
        summary(len(predictions.labels), classes, settings),
        markdown_table(("metric", "value"), [(k, f"{v:.4f}") for k, v in whole.items()]),
        *size_part(sizes),
        *_class_part(table, classes),
        *_confusion_part(counts, classes),
        *_calibration_part(found),
        *_mistakes_part(mistakes, predictions, images),
        *curves_part(curves),
    ]
    write_atomic(folder / "report.md", "\n\n".join(parts).encode(errors="replace") + b"\n")


def board_images(predictions: Predictions, images: LabelledImages, train_counts: Counts) -> dict[str, ImageArray]:
    """What TensorBoard shows of an evaluation during training."""
    counts = confusion(predictions, len(images.classes))
    figure = confusion_figure(counts, images.classes, train_counts)
    drawn = {"confusion_matrix": as_image(figure, BOARD_DOTS_PER_INCH)}
    mistakes = worst_mistakes(predictions, None, ON_BOARD)
    return drawn | ({"worst_mistakes": mistakes_sheet(mistakes, predictions, None, images)} if len(mistakes) else {})


def calibrated(predictions: Predictions, groups: int) -> Calibration:
    """Of the classes that were said."""
    right = predictions.top[:, 0] == predictions.labels
    return calibration(predictions.probabilities[:, 0], right, groups)


def sizes_of(
    predictions: Predictions, recall: NDArray[np.float64], train_counts: Counts | None, bounds: Sequence[int]
) -> list[dict[str, Any]]:
    """The groups of classes by training images; empty if their numbers are unknown."""
    return [] if train_counts is None else by_size(size_bins(bounds, train_counts), predictions, recall)


def _class_part(table: dict[str, NDArray], classes: Sequence[str]) -> list[str]:
    return ["## Classes", *class_rows(table, classes), "![Accuracy of each class](per_class.png)"]


def _confusion_part(counts: Counts, classes: Sequence[str]) -> list[str]:
    rows = _confusions(counts, classes)
    more = f"The {CONFUSIONS} most frequent of {len(rows)}; all are in [confusions.csv](confusions.csv)."
    listed = [markdown_table(("true", "predicted", "images"), rows[:CONFUSIONS])] if rows else ["None."]
    note = [more] if len(rows) > CONFUSIONS else []
    return ["## Confusions", *note, *listed, "![Confusion matrix](confusion_matrix.png)"]


def _calibration_part(found: Calibration) -> list[str]:
    shown = np.isfinite(found.accuracy)
    said, right = (
        np.average(values[shown], weights=found.counts[shown]) for values in (found.confidence, found.accuracy)
    )
    verdict = "surer than it is right" if said > right else "less sure than it is right"
    text = (
        f"The model says its classes with {said:.1%} on average, and is right in {right:.1%}: it is {verdict}. "
        f"Expected calibration error in {len(found.counts)} groups: {found.error:.4f}."
    )
    return ["## Calibration", text, "![Reliability diagram](reliability.png)"]


def _mistakes_part(mistakes: NDArray[np.int64], predictions: Predictions, images: LabelledImages) -> list[str]:
    if not len(mistakes):
        return ["## Worst mistakes", "None: all images are classified rightly."]
    rows = [
        (
            place,
            images.name(int(i)),
            images.classes[predictions.labels[i]],
            images.classes[predictions.top[i, 0]],
            f"{predictions.probabilities[i, 0]:.4f}",
        )
        for place, i in enumerate(mistakes, start=1)
    ]
    table = markdown_table(("", "image", "true", "predicted", "probability"), rows)
    text = "Wrong predictions of the highest probability: hard images, or wrong labels."
    return ["## Worst mistakes", text, "![Worst mistakes](worst_mistakes.png)", table]


def _matrix_csv(counts: Counts, classes: Sequence[str]) -> bytes:
    return csv_bytes(["true \\ predicted", *classes], [[name, *counts[i].tolist()] for i, name in enumerate(classes)])


def _confusions(counts: Counts, classes: Sequence[str]) -> list[tuple[str, str, int]]:
    """What was taken for what, and how often; most frequent first."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    order = np.argsort(-wrong[rows, columns], kind="stable")
    return [(classes[rows[i]], classes[columns[i]], int(wrong[rows[i], columns[i]])) for i in order]


def _calibration_csv(found: Calibration) -> bytes:
    header = ["above", "up_to", "images", "mean_probability", "accuracy"]
    columns = found.edges[:-1], found.edges[1:], found.counts, found.confidence, found.accuracy
    rows = [["" if value != value else value.item() for value in row] for row in zip(*columns, strict=True)]
    return csv_bytes(header, rows)


def _prediction_table(predictions: Predictions, images: LabelledImages) -> tuple[list[str], list[list[Any]]]:
    places = range(1, predictions.top.shape[1] + 1)
    header = ["image", "true", *(f"{kind}_{place}" for place in places for kind in ("class", "probability")), "loss"]
    rows = []
    for index, (label, top, probabilities, loss) in enumerate(
        zip(predictions.labels, predictions.top, predictions.probabilities, predictions.losses, strict=True)
    ):
        guesses = [
            cell for c, p in zip(top, probabilities, strict=True) for cell in (images.classes[c], repr(float(p)))
        ]
        rows.append([images.name(index), images.classes[label], *guesses, repr(float(loss))])
    return header, rows
