"""What an evaluation leaves in results/<split>/: numbers for programs, tables and images for people."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detection.data.annotations import AnnotatedImages
from detection.report.coco_metrics import RECALLS, CocoResult
from detection.report.confusion import SCORE, Confusion, confuse
from detection.report.figures import overview
from detection.report.predictions import Predictions, as_coco
from engine.files import write_atomic
from engine.images.image_io import write_image
from engine.plots.evaluation import confusions
from engine.text import csv_bytes, markdown_table

CONFUSIONS = 10
"""Confusions between classes that report.md lists."""
SHOWN_CLASSES = 20
"""Classes that report.md lists: all if there are no more, else the best and the worst halves of this number."""


def write_report(
    folder: Path, title: str, result: CocoResult, predictions: Predictions, images: AnnotatedImages
) -> None:
    """Writes into ``folder``: metrics.json, report.md, per_class.csv, precision_recall.csv and .png,
    confusion_matrix.csv and .png, images.csv, detections.json (COCO's results format), best.png and worst.png.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known, classes = images.annotations, images.annotations.classes
    confusion = confuse(predictions, known)
    metrics = {name: None if math.isnan(value) else value for name, value in result.metrics.items()}
    write_atomic(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    shown = overview(result, confusion, predictions, images)
    write_atomic(folder / "report.md", report_text(title, result, confusion, classes, list(shown)))
    per_class = [[name, *(_cell(column[i]) for column in result.per_class.values())] for i, name in enumerate(classes)]
    write_atomic(folder / "per_class.csv", csv_bytes(["class", *result.per_class], per_class))
    curve_rows = [[f"{recall:.2f}", *map(_cell, result.precision[:, i])] for i, recall in enumerate(RECALLS)]
    write_atomic(folder / "precision_recall.csv", csv_bytes(["recall", *classes], curve_rows))
    counts = [[name, *confusion.counts[i].tolist()] for i, name in enumerate([*classes, "nothing"])]
    write_atomic(folder / "confusion_matrix.csv", csv_bytes(["true \\ predicted", *classes, "missed"], counts))
    columns = (confusion.hits.tolist(), confusion.wrong.tolist(), confusion.missed.tolist(), map(_cell, confusion.f1))
    rows = [[images.name(i), *row] for i, row in enumerate(zip(*columns, strict=True))]
    write_atomic(folder / "images.csv", csv_bytes(["image", "found", "wrong", "missed", "f1"], rows))
    write_atomic(folder / "detections.json", json.dumps(as_coco(predictions, known)))
    for name, image in shown.items():
        write_image(folder / f"{name}.png", image)


def report_text(
    title: str, result: CocoResult, confusion: Confusion, classes: Sequence[str], shown: Sequence[str]
) -> str:
    """Writes the report as Markdown: figures, classes from best to worst, what is taken for what, and images.

    ``shown``: names of the images, which lie beside the report.
    """
    objects = result.per_class["objects"].astype(int)
    order = sorted(range(len(classes)), key=lambda c: -np.nan_to_num(result.per_class["AP"][c], nan=-1.0))
    note = []
    if len(order) > SHOWN_CLASSES:
        half = SHOWN_CLASSES // 2
        note = [f"The best and the worst {half} of {len(order)} by AP; all are in per_class.csv.", ""]
        order = [*order[:half], *order[-half:]]
    columns = ("AP", "AP50", "AR_100")
    rows = [[classes[c], objects[c], *(_number(result.per_class[name][c], 3) for name in columns)] for c in order]
    found, wrong, missed = (int(part.sum()) for part in (confusion.hits, confusion.wrong, confusion.missed))
    parts = [
        f"# {title}",
        "",
        f"{len(confusion.hits)} images with {objects.sum()} objects of {len(classes)} classes.",
        "",
        markdown_table(["metric", "value"], [[name, _number(value, 4)] for name, value in result.metrics.items()]),
        "",
        "## Classes",
        "",
        *note,
        markdown_table(["class", "objects", *columns], rows),
        "",
        f"At a score of {SCORE} or more and IoU 0.5: {found} found, {wrong} wrong, {missed} missed.",
        "",
    ]
    between = confusion.counts[:-1, :-1]
    pairs = confusions(between)[:CONFUSIONS]
    if listed := [(classes[true], classes[said], between[true, said]) for true, said in pairs]:
        parts += [markdown_table(["true", "predicted", "times"], listed), ""]
    return "\n".join([*parts, *(f"![{name}]({name}.png)" for name in shown), ""])


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
