"""One annotated image on its way to the model, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from detection.data.annotations import AnnotatedImages
from engine.images.lazy_image import LazyImage

CROWD = -1
"""Label of a region that is neither object nor background."""


@dataclass(frozen=True)
class Sample:
    """An image and its n boxes."""

    image: LazyImage
    boxes: Tensor
    """(n, 4) float32, xyxy in pixels, within the image."""
    labels: Tensor
    """(n,) int64, classes from 0 on or :data:`CROWD`."""


def read_sample(images: AnnotatedImages, index: int) -> Sample:
    """Reads an image with its boxes, clipped to it."""
    known, image = images.annotations, images.image(index)
    rows = known.of(index)
    boxes = torch.from_numpy(known.boxes[rows]).clamp(min=0)
    limits = torch.tensor(image.size * 2)
    labels = torch.from_numpy(known.labels[rows]).masked_fill(torch.from_numpy(known.crowd[rows]), CROWD)
    return Sample(image, boxes.minimum(limits).float(), labels)


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Makes a batch of samples of :class:`detection.augmentation.transforms.TrainReader`.

    Returns:
        ``image`` uint8 (B, 3, H, W), ``index`` (B,), ``boxes`` (B, M, 4) xyxy in [0, 1], ``labels`` (B, M), ``mask``
        (B, M), which is False where a row only fills up its image, and ``ignored`` (B, R, 4), regions filled up with
        zeros. M is the largest number of objects, at least 1; R that of regions, often 0.
    """
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    counts = torch.tensor([len(labels) for labels in columns["labels"]])
    extra = max(0, 1 - int(counts.max()))
    boxes, labels, ignored = (pad_sequence(columns[name], batch_first=True) for name in ("boxes", "labels", "ignored"))
    labels = F.pad(labels, (0, extra))
    return {
        "image": torch.stack(columns["image"]),
        "index": torch.tensor(columns["index"]),
        "boxes": F.pad(boxes, (0, 0, 0, extra)),
        "labels": labels,
        "mask": torch.arange(labels.shape[1]) < counts[:, None],
        "ignored": ignored,
    }
