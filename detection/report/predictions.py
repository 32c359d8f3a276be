"""What a model has found on each image of a split, gathered from all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.boxes.postprocess import Detections
from detection.data.annotations import Annotations
from engine.distributed.ranks import Ranks

WIDTH = 8
"""Columns of a gathered row: image, place, label, score and four coordinates."""


@dataclass(frozen=True)
class Predictions:
    """D detections, sorted by image, the best of each first. Those of image i are from ``starts[i]`` on."""

    starts: NDArray[np.int64]
    """(N + 1,) for N images."""
    labels: NDArray[np.int64]
    """(D,) classes from 0 on."""
    scores: NDArray[np.float64]
    """(D,) in [0, 1]."""
    boxes: NDArray[np.float64]
    """(D, 4) xyxy in pixels."""

    def of(self, index: int) -> slice:
        """Returns the rows of an image."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))


def rows(indices: Tensor, detections: Detections, sizes: Tensor) -> Tensor:
    """Makes of a batch's detections a float64 matrix (D, 8) on the CPU.

    The host waits here for the batch to be done: on a GPU it is better called for all batches after the last one.

    Args:
        indices: (B,) the images.
        detections: of a batch of B.
        sizes: (B, 2) their widths and heights in pixels.
    """
    found = []
    for index, size, (boxes, scores, labels) in zip(indices.tolist(), sizes, detections.images(), strict=True):
        scale = size.repeat(2).double()
        places = torch.arange(len(scores), dtype=torch.float64)
        columns = [torch.full_like(places, index), places, labels.double(), scores.double()]
        found.append(torch.cat([torch.stack(columns, dim=1), boxes.double() * scale], dim=1))
    return torch.cat(found)


def gather(parts: Sequence[Tensor], num_images: int, ranks: Ranks) -> Predictions:
    """Gathers all ranks' rows; the same for any number of ranks."""
    own = torch.cat(list(parts)) if parts else torch.empty(0, WIDTH, dtype=torch.float64)
    return from_rows(ranks.gather_rows(own).numpy(), num_images)


def from_rows(table: NDArray[np.float64], num_images: int) -> Predictions:
    """Sorts rows (D, 8) by image and place."""
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    images = table[:, 0].astype(np.int64)
    again = (np.diff(images) == 0) & (np.diff(table[:, 1]) == 0)
    assert not again.any(), "an image was evaluated twice"
    return Predictions(
        starts=np.searchsorted(images, np.arange(num_images + 1)),
        labels=table[:, 2].astype(np.int64),
        scores=table[:, 3],
        boxes=table[:, 4:],
    )


def as_coco(predictions: Predictions, known: Annotations) -> list[dict[str, Any]]:
    """Returns the detections as COCO's results format has them, under the data set's own ids."""
    return entries(predictions, known.image_ids, known.category_ids, score=predictions.scores.tolist())


def as_annotations(
    predictions: Predictions, image_ids: Sequence[Any], category_ids: Sequence[Any]
) -> list[dict[str, Any]]:
    """Returns the detections as the annotations of a COCO file, numbered from 1 on."""
    areas = (predictions.boxes[:, 2:] - predictions.boxes[:, :2]).prod(axis=1).tolist()
    count, scores = len(areas), predictions.scores.tolist()
    numbers = {"id": range(1, count + 1), "area": areas, "score": scores, "iscrowd": [0] * count}
    return entries(predictions, image_ids, category_ids, **numbers)


def entries(
    found: Predictions | Annotations,
    image_ids: Sequence[Any] | NDArray,
    category_ids: Sequence[Any],
    **others: Sequence[Any],
) -> list[dict[str, Any]]:
    """Returns COCO's entry of each box: ``image_id``, ``category_id``, ``bbox``, and ``others``, a value a box."""
    columns = {
        "image_id": np.repeat(image_ids, np.diff(found.starts)).tolist(),
        "category_id": [category_ids[label] for label in found.labels.tolist()],
        "bbox": np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1).tolist(),
        **others,
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
