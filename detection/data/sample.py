"""One annotated image on its way to the model, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from detection.data.annotations import AnnotatedImages

CROWD = -1
"""Label of a region that is neither object nor background."""


@dataclass(frozen=True)
class Sample:
    """An image and its n boxes."""

    image: Image.Image
    boxes: Tensor
    """(n, 4) float32, xyxy in pixels, within the image."""
    labels: Tensor
    """(n,) int64, classes from 0 on or :data:`CROWD`."""


def read_sample(images: AnnotatedImages, index: int) -> Sample:
    """An image with its boxes, clipped to it."""
    known, image = images.annotations, images.image(index)
    rows = known.of(index)
    boxes = torch.from_numpy(known.boxes[rows]).clamp(min=0)
    limits = torch.tensor([image.width, image.height] * 2)
    labels = torch.from_numpy(known.labels[rows]).masked_fill(torch.from_numpy(known.crowd[rows]), CROWD)
    return Sample(image, boxes.minimum(limits).float(), labels)


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch of what :class:`detection.augmentation.transforms.TrainTransform` gives, and ``index``.

    Returns:
        ``image`` uint8 (B, 3, H, W), ``index`` (B,), ``boxes`` (B, M, 4) xyxy in [0, 1], ``labels`` (B, M), ``mask``
        (B, M), which is False where a row only fills up its image, and ``ignored`` (B, R, 4), regions filled up with
        zeros. M is the largest number of objects, at least 1; R that of regions, often 0.
    """
    batch, objects = len(samples), max(1, *(len(sample["labels"]) for sample in samples))
    boxes, labels = torch.zeros(batch, objects, 4), torch.zeros(batch, objects, dtype=torch.int64)
    mask = torch.zeros(batch, objects, dtype=torch.bool)
    ignored = torch.zeros(batch, max(len(sample["ignored"]) for sample in samples), 4)
    for row, sample in enumerate(samples):
        count = len(sample["labels"])
        boxes[row, :count], labels[row, :count], mask[row, :count] = sample["boxes"], sample["labels"], True
        ignored[row, : len(sample["ignored"])] = sample["ignored"]
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "index": torch.tensor([sample["index"] for sample in samples]),
        "boxes": boxes,
        "labels": labels,
        "mask": mask,
        "ignored": ignored,
    }
