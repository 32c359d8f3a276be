"""What is taken for what, and on which images a model does well: each detection beside the object that it found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_area, box_iou

from detection.boxes.boxes import intersections
from detection.data.annotations import Annotations
from detection.report.predictions import Predictions

SCORE = 0.3
"""Least score of a detection that counts here."""
IOU = 0.5
"""Least overlap of a detection with the object that it found."""


@dataclass(frozen=True)
class Confusion:
    """Counts of detections and objects."""

    counts: NDArray[np.int64]
    """(C + 1, C + 1): row the object's class, column the detection's; last row: nothing there, last column: missed."""
    hits: NDArray[np.int64]
    """(N,) objects of each image that were found under their own class."""
    wrong: NDArray[np.int64]
    """(N,) detections without such an object."""
    missed: NDArray[np.int64]
    """(N,) objects without such a detection."""

    @property
    def f1(self) -> NDArray[np.float64]:
        """(N,) harmonic mean of precision and recall of each image; NaN where there is nothing and nothing found."""
        total = 2 * self.hits + self.wrong + self.missed
        return np.divide(2 * self.hits, total, out=np.full(len(total), np.nan), where=total > 0)


def confuse(predictions: Predictions, known: Annotations, score: float = SCORE, iou: float = IOU) -> Confusion:
    """Pairs detections and objects of any classes, image by image.

    The best detection takes the object that it overlaps most, the next one of those that are left, and so on. What
    finds no object but lies by half in a crowd region does not count.
    """
    classes, images = len(known.classes), len(known)
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    hits, wrong, missed = (np.zeros(images, np.int64) for _ in range(3))
    for index in range(images):
        found, truth = predictions.of(index), known.of(index)
        good = predictions.scores[found] >= score
        crowd = known.crowd[truth]
        boxes = torch.from_numpy(predictions.boxes[found][good])
        objects = torch.from_numpy(known.boxes[truth][~crowd])
        regions = torch.from_numpy(known.boxes[truth][crowd])
        taken = pair(box_iou(boxes, objects).numpy(), iou)
        in_crowd = (intersections(regions, boxes) >= 0.5 * box_area(boxes)).any(dim=0).numpy()
        labels, own = predictions.labels[found][good], known.labels[truth][~crowd]
        counting = (taken >= 0) | ~in_crowd
        rows = np.where(taken >= 0, own[taken] if len(own) else classes, classes)
        np.add.at(counts, (rows[counting], labels[counting]), 1)
        left = np.setdiff1d(np.arange(len(own)), taken)
        np.add.at(counts[:, classes], own[left], 1)
        hits[index] = (rows == labels).sum()
        wrong[index] = counting.sum() - hits[index]
        missed[index] = len(own) - hits[index]
    return Confusion(counts, hits, wrong, missed)


def pair(iou: NDArray[np.float64], least: float) -> NDArray[np.int64]:
    """Gives each detection its object, (D,), -1 for none; ``iou`` (D, M), the best detection first."""
    free = iou.copy()
    taken = np.full(len(iou), -1, np.int64)
    for detection in range(len(iou) if iou.shape[1] else 0):
        best = int(free[detection].argmax())
        if free[detection, best] >= least:
            taken[detection] = best
            free[:, best] = -1
    return taken
