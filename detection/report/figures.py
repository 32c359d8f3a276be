"""What an evaluation shows: precision-recall curves, the confusion matrix, best and worst images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
from engine.plots.evaluation import confusion_figure, precision_recall_figure
from engine.plots.figures import Tile, as_image, sheet
from engine.plots.thresholds import MOST_CLASSES, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8
"""Images on a sheet of the best or the worst."""


def overview(
    result: CocoResult, confusion: Confusion, predictions: Predictions, images: AnnotatedImages
) -> dict[str, ImageArray]:
    """Draws, by name, precision_recall if there are objects, confusion_matrix, and best and worst if images are so."""
    classes, drawn = images.annotations.classes, {}
    if not np.isnan(result.precision).all():
        drawn["precision_recall"] = as_image(curves(result, classes))
    drawn["confusion_matrix"] = as_image(confusion_matrix(confusion.counts, classes))
    for name, indices in zip(("best", "worst"), best_and_worst(confusion), strict=True):
        if indices:
            drawn[name] = images_sheet(images, predictions, confusion, indices)
    return drawn


def board_images(
    result: CocoResult, confusion: Confusion, predictions: Predictions, images: AnnotatedImages
) -> dict[str, ImageArray]:
    """Draws what TensorBoard shows of an evaluation during training, under the names that all tasks have."""
    names = {"worst": "worst_mistakes", "best": "best_images"}
    drawn = overview(result, confusion, predictions, images)
    return {names.get(name, name): image for name, image in drawn.items() if name != "precision_recall"}


def board_curves(result: CocoResult, classes: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Computes precision over recall at IoU 0.5, as :mod:`engine.plots.thresholds` does, from what COCO reads off.

    Its points stand at even steps of recall, not of the score, from the largest recall to none. ``all`` is the mean of
    the classes.
    """
    objects = result.per_class["objects"]
    there = np.flatnonzero(objects > 0)
    if not len(there):
        return {}
    curves = {"all": _points(np.nanmean(result.precision[there], axis=0), int(objects.sum()))}
    for c in there.tolist() if len(classes) <= MOST_CLASSES else ():
        curves[classes[c]] = _points(result.precision[c], int(objects[c]))
    return curves


def _points(precision: NDArray[np.float64], objects: int) -> NDArray[np.float64]:
    """Of (101,) precisions at rising recalls: what is never reached is left at no recall."""
    reached = np.flatnonzero(precision > 0)
    ends = np.full(len(RECALLS), reached[-1] if len(reached) else 0)
    places = np.minimum(np.arange(len(RECALLS)), ends)[::-1]
    true = RECALLS[places] * objects
    share = precision[places]
    false = np.divide(true, share, out=np.zeros_like(true), where=share > 0) - true
    points = table(true, np.maximum(false, 0.0), objects, 0)
    points[4] = share
    return points


def curves(result: CocoResult, classes: Sequence[str]) -> Figure:
    """Draws precision against recall at IoU 0.5, of each class that has objects, at least one, and their mean."""
    ap50, mean = result.per_class["AP50"], np.nanmean(result.precision, axis=0)
    whole = (f"mean (AP50 {result.metrics['AP50']:.3f})", (RECALLS, mean))
    title = "Precision and recall at IoU 0.5"
    return precision_recall_figure(title, classes, ap50, lambda c: (RECALLS, result.precision[c]), whole, "AP50")


def confusion_matrix(counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Draws counts (C + 1, C + 1), see :class:`detection.report.confusion.Confusion`; each row as shares."""
    objects = counts[:-1].sum(axis=1)
    title = f"Confusion (score {SCORE} or more, IoU 0.5)"
    return confusion_figure(counts, [*classes, "nothing"], [*classes, "missed"], objects, title)


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
        drawn = draw(fit(images.image(index).pillow()), detections_on(predictions, index, size), known.classes, truth)
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
