"""What the evaluation of a model of several labels an image leaves in results/<split>/."""

from __future__ import annotations

from typing import Any

import numpy as np

from classification.metrics.multi_label import multilabel_per_class
from classification.metrics.names import MULTILABEL_METRICS, TUNED_METRICS
from classification.metrics.predictions import MultiLabelPredictions
from classification.report.mistakes import Thresholds
from classification.report.parts import Counts, Report, board, class_part, curves_part, metrics_part, mistakes_part
from classification.report.plots import classes_figure, multilabel_curves
from engine.datasets.labelled import LabelledImages
from engine.images.image_io import ImageArray


def write_multilabel_report(
    report: Report, metrics: dict[str, float], predictions: MultiLabelPredictions, thresholds: Thresholds
) -> None:
    """Writes metrics.json, report.md, tables as CSV and figures as PNG into the report's folder, which it makes.

    Args:
        metrics: those of the predictions, to which the groups of classes are added.
        thresholds: (C,), by which the tables and the mistakes decide what is said.
    """
    report.folder.mkdir(parents=True, exist_ok=True)
    table = multilabel_per_class(predictions, thresholds)
    report.csv("predictions.csv", *_prediction_table(predictions, thresholds, report.images))
    curves = multilabel_curves(predictions, table["average_precision"], report.images.classes)
    report.write(
        [
            *metrics_part(report, metrics, predictions, table, "mAP"),
            *class_part(report, table, "average_precision", "average precision"),
            report.figure("precision_recall", curves, "Precision and recall"),
            *mistakes_part(report, predictions, thresholds),
            *curves_part(report, {**MULTILABEL_METRICS, **TUNED_METRICS}),
        ]
    )


def multilabel_board_images(
    predictions: MultiLabelPredictions, images: LabelledImages, thresholds: Thresholds, train_counts: Counts
) -> dict[str, ImageArray]:
    """Draws what TensorBoard shows of an evaluation during training."""
    table = multilabel_per_class(predictions, thresholds)
    values = table["average_precision"], table["support"]
    figure = classes_figure(*values, images.classes, train_counts, "average precision")
    return board("per_class", figure, predictions, thresholds, images)


def _prediction_table(
    predictions: MultiLabelPredictions, thresholds: Thresholds, images: LabelledImages
) -> tuple[list[str], list[list[Any]]]:
    """Of each image its true and its said classes, joined by ``|``, its loss, and each class's probability."""
    rows = []
    for index, (labels, values) in enumerate(zip(predictions.labels, predictions.probabilities, strict=True)):
        both = (labels, values >= thresholds)
        names = ["|".join(images.classes[c] for c in np.flatnonzero(chosen)) for chosen in both]
        rows.append([images.name(index), *names, predictions.losses[index].item(), *values.tolist()])
    return ["image", "true", "predicted", "loss", *(f"probability_{name}" for name in images.classes)], rows
