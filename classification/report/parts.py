"""Parts that the reports of one label an image and of several have in common."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classification.metrics.sections import ClassificationEvaluationConfig
from classification.report.plots import extremes, sizes_figure
from engine.datasets.labelled import LabelledImages
from engine.files import write_atomic
from engine.plots.figures import write_figure
from engine.text import csv_bytes, markdown_table

LISTED = 20
"""Classes that report.md lists: all if there are no more, else the best and the worst halves of this number."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Origin:
    """What a report is about."""

    title: str
    images: LabelledImages
    """Those that were evaluated."""
    train_counts: Counts | None
    """Training images of each class, (C,); None if unknown."""
    settings: ClassificationEvaluationConfig
    history: Path
    """The run's metrics.jsonl."""


def summary(num_images: int, classes: Sequence[str], settings: ClassificationEvaluationConfig) -> str:
    """The report's first sentence."""
    mirrored = "; each is also mirrored, and the two probabilities averaged" if settings.tta == "flip" else ""
    return f"{num_images} images of {len(classes)} classes{mirrored}."


def write_metrics(folder: Path, metrics: Mapping[str, float], sizes: Sequence[dict[str, Any]]) -> None:
    """metrics.json; what is not finite, as of a model that has diverged, becomes null."""
    values = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    write_atomic(folder / "metrics.json", json.dumps({**values, "size_bins": sizes}, indent=2) + "\n")


def write_class_table(folder: Path, table: dict[str, NDArray], classes: Sequence[str]) -> None:
    """per_class.csv: one row a class, in the order of the classes."""
    rows = [[name, *(column[i].item() for column in table.values())] for i, name in enumerate(classes)]
    write_atomic(folder / "per_class.csv", csv_bytes(["class", *table], rows))


def write_size_table(folder: Path, sizes: Sequence[dict[str, Any]], drawn: str) -> None:
    """size_bins.csv, and size_bins.png of the metric ``drawn``."""
    write_atomic(folder / "size_bins.csv", csv_bytes(list(sizes[0]), [list(row.values()) for row in sizes]))
    write_figure(folder / "size_bins.png", sizes_figure(sizes, drawn))


def size_part(sizes: Sequence[dict[str, Any]]) -> list[str]:
    """The report's part on classes by their number of training images."""
    if not sizes:
        return []
    table = markdown_table(
        [key.replace("_", " ") for key in sizes[0]], [[shown_value(v) for v in row.values()] for row in sizes]
    )
    return ["## By training images of a class", table, "![By training images](size_bins.png)"]


def curves_part(drawn: bool) -> list[str]:
    """The report's part on how the run went."""
    return ["## Training curves", "![Training curves](curves.png)"] if drawn else []


def class_rows(table: dict[str, NDArray], classes: Sequence[str]) -> tuple[str, str]:
    """What classes are listed, and the table of them: by F1, of many the best and the worst."""
    best, worst = (extremes(table["f1"], table["support"], sign) for sign in (-1, 1))
    text, order = "From best to worst by F1.", best
    if len(best) > LISTED:
        half = LISTED // 2
        text = f"The best and the worst {half} of {len(best)} by F1; all are in [per_class.csv](per_class.csv)."
        order = np.concatenate([best[:half], worst[:half][::-1]])
    if without := len(classes) - len(best):
        text += f" {without} classes have no images here."
    rows = [[classes[i], *(shown_value(column[i].item()) for column in table.values())] for i in order]
    return text, markdown_table(["class", *(name.replace("_", " ") for name in table)], rows)


def shown_value(value: Any) -> str:
    """A cell of a table of the report."""
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
