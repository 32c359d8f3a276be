"""What the evaluation of a model of one label an image leaves in results/<split>/: numbers, tables and figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from classification.metrics.calibration import Calibration, calibration
from classification.metrics.names import METRICS
from classification.metrics.predictions import Predictions
from classification.metrics.single_label import confusion, per_class
from classification.report.parts import Counts, Report, board, class_part, curves_part, metrics_part, mistakes_part
from classification.report.plots import reliability_figure
from engine.datasets.labelled import LabelledImages
from engine.images.image_io import ImageArray
from engine.plots.evaluation import confusion_figure, confusions
from engine.text import markdown_table

TITLE = "Confusion (share of the true class)"
CONFUSIONS = 15
"""Confusions that report.md lists."""


def write_report(report: Report, metrics: dict[str, float], predictions: Predictions) -> None:
    """Writes metrics.json, report.md, tables as CSV and figures as PNG into the report's folder, which it makes.

    ``metrics``: those of the predictions, to which the calibration error and the groups of classes are added.
    """
    report.folder.mkdir(parents=True, exist_ok=True)
    counts = confusion(predictions, len(report.images.classes))
    table, found = per_class(counts), calibrated(predictions, report.settings.calibration_bins)
    report.csv("predictions.csv", *_prediction_table(predictions, report.images))
    report.write(
        [
            *metrics_part(report, {**metrics, "ece": found.error}, predictions, table, "top1"),
            *class_part(report, table, "recall", "accuracy"),
            *_confusion_part(report, counts),
            *_calibration_part(report, found),
            *mistakes_part(report, predictions, None),
            *curves_part(report, METRICS),
        ]
    )


def board_images(predictions: Predictions, images: LabelledImages, train_counts: Counts) -> dict[str, ImageArray]:
    """Draws what TensorBoard shows of an evaluation during training."""
    classes = images.classes
    figure = confusion_figure(confusion(predictions, len(classes)), classes, classes, train_counts, TITLE)
    return board("confusion_matrix", figure, predictions, None, images)


def calibrated(predictions: Predictions, groups: int) -> Calibration:
    """Compares the probabilities of the classes that were said with how often they were right."""
    right = predictions.top[:, 0] == predictions.labels
    return calibration(predictions.probabilities[:, 0], right, groups)


def _confusion_part(report: Report, counts: Counts) -> list[str]:
    classes = report.images.classes
    matrix = [[name, *row] for name, row in zip(classes, counts.tolist(), strict=True)]
    report.csv("confusion_matrix.csv", ["true \\ predicted", *classes], matrix)
    heading = ("true", "predicted", "images")
    rows = [(classes[true], classes[said], int(counts[true, said])) for true, said in confusions(counts)]
    report.csv("confusions.csv", heading, rows)
    more = f"The {CONFUSIONS} most frequent of {len(rows)}; all are in [confusions.csv](confusions.csv)."
    listed = markdown_table(heading, rows[:CONFUSIONS]) if rows else "None."
    figure = confusion_figure(counts, classes, classes, report.train_counts, TITLE)
    line = report.figure("confusion_matrix", figure, "Confusion matrix")
    return ["## Confusions", *([more] if len(rows) > CONFUSIONS else []), listed, line]


def _calibration_part(report: Report, found: Calibration) -> list[str]:
    columns = found.edges[:-1], found.edges[1:], found.counts, found.confidence, found.accuracy
    rows = [["" if value != value else value.item() for value in row] for row in zip(*columns, strict=True)]
    report.csv("calibration.csv", ["above", "up_to", "images", "mean_probability", "accuracy"], rows)
    shown = np.isfinite(found.accuracy)
    said, right = (
        np.average(values[shown], weights=found.counts[shown]) for values in (found.confidence, found.accuracy)
    )
    verdict = "surer than it is right" if said > right else "less sure than it is right"
    text = (
        f"The model says its classes with {said:.1%} on average, and is right in {right:.1%}: it is {verdict}. "
        f"Expected calibration error in {len(found.counts)} groups: {found.error:.4f}."
    )
    return ["## Calibration", text, report.figure("reliability", reliability_figure(found), "Reliability diagram")]


def _prediction_table(predictions: Predictions, images: LabelledImages) -> tuple[list[str], list[list[Any]]]:
    places = range(1, predictions.top.shape[1] + 1)
    header = ["image", "true", *(f"{kind}_{place}" for place in places for kind in ("class", "probability")), "loss"]
    rows = []
    for index, (label, top) in enumerate(zip(predictions.labels, predictions.top, strict=True)):
        pairs = zip(top, predictions.probabilities[index].tolist(), strict=True)
        guesses = [cell for c, probability in pairs for cell in (images.classes[c], probability)]
        rows.append([images.name(index), images.classes[label], *guesses, predictions.losses[index].item()])
    return header, rows
