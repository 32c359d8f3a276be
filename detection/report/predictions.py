"""What a model has found on each picture of a split, gathered from all ranks."""

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
"""Columns of a gathered row: picture, place, label, score and four coordinates."""


@dataclass(frozen=True)
class Predictions:
    """D detections, sorted by picture, the best of each first. Those of picture i are from ``starts[i]`` on."""

    starts: NDArray[np.int64]
    """(N + 1,) for N pictures."""
    labels: NDArray[np.int64]
    """(D,) classes from 0 on."""
    scores: NDArray[np.float64]
    """(D,) in [0, 1]."""
    boxes: NDArray[np.float64]
    """(D, 4) xyxy in pixels."""

    def of(self, index: int) -> slice:
        """The detections of a picture."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    @property
    def pictures(self) -> NDArray[np.int64]:
        """(D,) the picture of each detection."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def rows(indices: Tensor, detections: Detections, sizes: Tensor) -> Tensor:
    """A batch's detections as a float64 matrix (D, 8) on the CPU.

    The host waits here for the batch to be done: on a GPU it is better called for all batches after the last one.

    Args:
        indices: (B,) the pictures.
        detections: of a batch of B.
        sizes: (B, 2) their widths and heights in pixels.
    """
    found = []
    for index, size, (boxes, scores, labels) in zip(indices.tolist(), sizes, detections.pictures(), strict=True):
        scale = size.repeat(2).double()
        places = torch.arange(len(scores), dtype=torch.float64)
        columns = [torch.full_like(places, index), places, labels.double(), scores.double()]
        found.append(torch.cat([torch.stack(columns, dim=1), boxes.double() * scale], dim=1))
    return torch.cat(found)


def gather(parts: Sequence[Tensor], num_pictures: int, ranks: Ranks) -> Predictions:
    """All ranks' rows; the same for any number of ranks."""
    own = torch.cat(list(parts)) if parts else torch.empty(0, WIDTH, dtype=torch.float64)
    return from_rows(ranks.gather_rows(own).numpy(), num_pictures)


def from_rows(table: NDArray[np.float64], num_pictures: int) -> Predictions:
    """Sorts rows (D, 8) by picture and place."""
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    pictures = table[:, 0].astype(np.int64)
    again = (np.diff(pictures) == 0) & (np.diff(table[:, 1]) == 0)
    assert not again.any(), "a picture was evaluated twice"
    return Predictions(
        starts=np.searchsorted(pictures, np.arange(num_pictures + 1)),
        labels=table[:, 2].astype(np.int64),
        scores=table[:, 3],
        boxes=table[:, 4:],
    )


def as_coco(predictions: Predictions, known: Annotations) -> list[dict[str, Any]]:
    """The detections as COCO's results format has them, under the data set's own ids."""
    sides = predictions.boxes[:, 2:] - predictions.boxes[:, :2]
    bbox = np.concatenate([predictions.boxes[:, :2], sides], axis=1).tolist()
    pictures = known.picture_ids[predictions.pictures].tolist()
    return [
        {"image_id": picture, "category_id": known.category_ids[label], "bbox": box, "score": score}
        for picture, label, box, score in zip(
            pictures, predictions.labels.tolist(), bbox, predictions.scores.tolist(), strict=True
        )
    ]
