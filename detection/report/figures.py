"""What an evaluation shows: precision-recall curves, the confusion matrix, best and worst images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from detection.data.annotations import AnnotatedImages
from detection.report.coco_metrics import RECALLS, CocoResult
from detection.report.confusion import SCORE, Confusion
from detection.report.drawing import CELL, COLUMNS, Boxes, draw, fit
from detection.report.predictions import Predictions
from engine.images.image_io import ImageArray
from engine.plots.figures import Tile, as_image, sheet, shown_name

NAMED_CURVES = 12
"""Most classes whose curves have a colour and a name of their own; of more, only the mean has."""
LARGE_NAMES = 40
"""Most classes whose names stand on the axes of the confusion matrix in letters of the usual size."""
SMALL_NAMES = 100
"""Most classes whose names stand there in small letters; of more, some have numbers."""
SHOWN = 8
"""Images on a sheet of the best or the worst."""


def overview(
    result: CocoResult, confusion: Confusion, predictions: Predictions, images: AnnotatedImages
) -> dict[str, ImageArray]:
    """Draws, by name, precision_recall if there are objects, confusion_matrix, and best and worst if images are so."""
    classes, drawn = images.annotations.classes, {}
    if not np.isnan(result.precision).all():
        drawn["precision_recall"] = curves(result, classes)
    drawn["confusion_matrix"] = confusion_matrix(confusion.counts, classes)
    for name, indices in zip(("best", "worst"), best_and_worst(confusion), strict=True):
        if indices:
            drawn[name] = images_sheet(images, predictions, confusion, indices)
    return drawn


def curves(result: CocoResult, classes: Sequence[str]) -> ImageArray:
    """Draws precision against recall at IoU 0.5, of each class that has objects, at least one, and their mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title("Precision and recall at IoU 0.5")
    axes.grid(alpha=0.3)
    known = [label for label in range(len(classes)) if not np.isnan(result.precision[label]).all()]
    few = len(known) <= NAMED_CURVES
    for label in known:
        name = f"{shown_name(classes[label])} (AP50 {result.per_class['AP50'][label]:.3f})" if few else None
        axes.plot(RECALLS, result.precision[label], label=name, color=None if few else "0.8", linewidth=1)
    mean = result.precision[known].mean(axis=0)
    axes.plot(RECALLS, mean, color="black", linewidth=2, label=f"mean (AP50 {result.metrics['AP50']:.3f})")
    figure.legend(loc="outside right upper", fontsize=8)
    return as_image(figure)


def confusion_matrix(counts: NDArray[np.int64], classes: Sequence[str]) -> ImageArray:
    """Draws counts (C + 1, C + 1), see :class:`detection.report.confusion.Confusion`; each row as shares.

    Of more than :data:`SMALL_NAMES` classes some have numbers, by their places in confusion_matrix.csv.
    """
    from matplotlib.figure import Figure

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    count, number = len(classes), ""
    places, names = range(count), [shown_name(name) for name in classes]
    if count <= LARGE_NAMES:
        letters, side = 10, min(14.0, 3.5 + 0.32 * count)
    elif count <= SMALL_NAMES:
        letters, side = 6, 3.5 + 0.13 * count
    else:
        letters, side, number = 10, 9.0, " (number in confusion_matrix.csv)"
        step = 10 * -(-count // 300)
        places = range(step - 1, count - step // 2, step)  # none beside the last row, which has a name
        names = [str(place + 1) for place in places]
    figure = Figure(figsize=(1.12 * side, side), layout="constrained")
    axes = figure.add_subplot(xlabel=f"found{number}", ylabel=f"there{number}")
    axes.set_title(f"Confusion (score {SCORE} or more, IoU 0.5)")
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), ax=axes, fraction=0.046)
    axes.set_xticks([*places, count], [*names, "missed"], rotation=90, fontsize=letters)
    axes.set_yticks([*places, count], [*names, "nothing"], fontsize=letters)
    if len(classes) <= 20:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    return as_image(figure)


def best_and_worst(confusion: Confusion, count: int = SHOWN) -> tuple[list[int], list[int]]:
    """Finds images with the highest and with the lowest F1, the most telling first: of equals, those with more objects.

    Images with nothing on them and nothing found are left out; no image is in both lists.
    """
    f1, objects = confusion.f1, confusion.hits + confusion.missed
    order = [int(index) for index in np.lexsort((-objects, -f1)) if not np.isnan(f1[index])]
    worst = sorted(order, key=lambda index: (f1[index], -objects[index]))[: min(count, len(order) // 2)]
    return [index for index in order if index not in worst][:count], worst


def images_sheet(
    images: AnnotatedImages, predictions: Predictions, confusion: Confusion, indices: Sequence[int]
) -> ImageArray:
    """Draws images with what was found on them, and in white what is there, over their names and counts."""
    known, tiles = images.annotations, []
    for index in indices:
        size, rows = known.sizes[index].tolist(), known.of(index)
        truth = Boxes(_shares(known.boxes[rows], size).clamp(0, 1), torch.from_numpy(known.labels[rows]))
        drawn = draw(fit(images.image(index)), detections_on(predictions, index, size), known.classes, truth)
        counts = f"{confusion.hits[index]} found, {confusion.wrong[index]} wrong, {confusion.missed[index]} missed"
        tiles.append(Tile(Image.fromarray(drawn), [(counts, "black"), (images.name(index), "dimgrey")]))
    return sheet(tiles, COLUMNS, CELL)


def detections_on(predictions: Predictions, index: int, size: Sequence[int]) -> Boxes:
    """Returns what was found with a score of :data:`SCORE` or more on an image of ``size``: width and height."""
    own = predictions.of(index)
    rows = own.start + np.flatnonzero(predictions.scores[own] >= SCORE)
    labels, scores = torch.from_numpy(predictions.labels[rows]), torch.from_numpy(predictions.scores[rows])
    return Boxes(_shares(predictions.boxes[rows], size), labels, scores)


def _shares(boxes: NDArray[np.float64], size: Sequence[int]) -> Tensor:
    """Returns boxes (n, 4) in pixels as parts of the image's width and height, ``size``."""
    return torch.from_numpy(boxes / np.tile(size, 2).astype(np.float64)).float()
