"""What an evaluation leaves in results/<split>/: numbers for programs, tables and a picture for people."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from classification.metrics import confusion, per_class
from classification.predictions import Predictions
from engine.files import write_atomic

SHOWN_CLASSES = 20
"""Classes that report.md lists: all if there are no more, else the best and the worst halves of this number."""
LABELLED_CLASSES = 40
"""Most classes whose names fit on the axes of the confusion matrix's picture."""


def write_report(
    folder: Path, title: str, metrics: dict[str, float], predictions: Predictions, classes: list[str], names: list[str]
) -> None:
    """Writes metrics.json, report.md, per_class.csv, predictions.csv, confusion_matrix.csv and .png into ``folder``.

    ``names``: what each picture is called, in the order of ``predictions``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts = confusion(predictions, len(classes))
    table = per_class(counts)
    write_atomic(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_atomic(folder / "report.md", report_text(title, metrics, counts, classes))
    rows = [[name, *(column[i].item() for column in table.values())] for i, name in enumerate(classes)]
    write_atomic(folder / "per_class.csv", csv_text(["class", *table], rows))
    write_atomic(
        folder / "confusion_matrix.csv",
        csv_text(["true \\ predicted", *classes], [[name, *counts[i].tolist()] for i, name in enumerate(classes)]),
    )
    write_atomic(folder / "predictions.csv", csv_text(*_prediction_table(predictions, classes, names)))
    draw_confusion(counts, classes, folder / "confusion_matrix.png")


def report_text(title: str, metrics: dict[str, float], counts: np.ndarray, classes: list[str]) -> str:
    """The report as Markdown: metrics, classes from best to worst, and what is most often taken for what."""
    table = per_class(counts)
    lines = [
        f"# {title}",
        "",
        f"{int(counts.sum())} pictures of {len(classes)} classes.",
        "",
        "| metric | value |",
        "|---|---|",
    ]
    lines += [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    order = np.argsort(-table["f1"], kind="stable")
    lines += ["", "## Classes", ""]
    if len(order) > SHOWN_CLASSES:
        half = SHOWN_CLASSES // 2
        lines += [f"The best and the worst {half} of {len(order)} by F1; all are in per_class.csv.", ""]
        order = np.concatenate([order[:half], order[-half:]])
    lines += ["| class | pictures | precision | recall | F1 |", "|---|---|---|---|---|"]
    for i in order:
        lines.append(
            f"| {classes[i]} | {table['support'][i]} | {table['precision'][i]:.3f} | {table['recall'][i]:.3f} "
            f"| {table['f1'][i]:.3f} |"
        )
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    pairs = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:10]]
    pairs = [pair for pair in pairs if wrong[pair]]
    if pairs:
        lines += ["", "## Most frequent confusions", "", "| true | predicted | pictures |", "|---|---|---|"]
        lines += [f"| {classes[row]} | {classes[column]} | {wrong[row, column]} |" for row, column in pairs]
    return "\n".join([*lines, "", "![Confusion matrix](confusion_matrix.png)", ""])


def csv_text(header: list[str], rows: list[list]) -> str:
    """Rows as CSV (RFC 4180, with plain newlines)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def _prediction_table(predictions: Predictions, classes: list[str], names: list[str]) -> tuple[list[str], list[list]]:
    places = range(1, predictions.top.shape[1] + 1)
    header = ["picture", "true", *(f"{kind}_{place}" for place in places for kind in ("class", "probability"))]
    rows = []
    for name, label, top, probabilities in zip(
        names, predictions.labels, predictions.top, predictions.probabilities, strict=True
    ):
        guesses = [cell for c, p in zip(top, probabilities, strict=True) for cell in (classes[c], f"{p:.6f}")]
        rows.append([name, classes[label], *guesses])
    return header, rows


def draw_confusion(counts: np.ndarray, classes: list[str], path: Path) -> None:
    """The confusion matrix, each row as shares of its true class; names where they can be read, numbers where few."""
    from matplotlib.figure import Figure

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = len(classes) <= LABELLED_CLASSES
    side = min(14.0, 3.5 + 0.32 * len(classes)) if named else 9.0
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="true", title="Confusion matrix (share of the true class)")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.046)
    if named:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= SHOWN_CLASSES:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    figure.savefig(path, dpi=120)
