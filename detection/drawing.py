"""Pictures with boxes on them, for people."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, make_grid

from engine.figures import LONGEST, font_file, shortened

Picture = NDArray[np.uint8]
"""(height, width, 3), red, green and blue."""

TRUTH_COLOUR = (255, 255, 255)

CELL = 320
"""Pixels of a side of a sheet's cells."""


@dataclass(frozen=True)
class Boxes:
    """Boxes (n, 4), xyxy in [0, 1], with labels (n,) and perhaps scores (n,)."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor | None = field(default=None)

    def above(self, score: float) -> Boxes:
        """Those with at least this score."""
        assert self.scores is not None
        good = self.scores >= score
        return Boxes(self.boxes[good], self.labels[good], self.scores[good])


def class_colour(label: int) -> tuple[int, int, int]:
    """A strong colour of a class's own; neighbours differ most."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(picture: Picture, found: Boxes, classes: Sequence[str], truth: Boxes | None = None) -> Picture:
    """``picture`` with boxes in the colours of their classes, named, with their scores if they have any.

    Of ``truth`` only outlines are drawn, in white, below the others.
    """
    image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
    height, width = picture.shape[:2]
    line = max(1, round(min(height, width) / 200))
    if truth is not None and len(truth.boxes):
        image = draw_bounding_boxes(image, _edges(truth.boxes, width, height), colors=TRUTH_COLOUR, width=line)
    if len(found.boxes):
        texts = [shortened(" ".join(classes[label].split()), LONGEST) for label in found.labels.tolist()]
        if found.scores is not None:
            texts = [f"{text} {score:.2f}" for text, score in zip(texts, found.scores.tolist(), strict=True)]
        colours: list[str | tuple[int, int, int]] = [class_colour(label) for label in found.labels.tolist()]
        image = draw_bounding_boxes(
            image,
            _edges(found.boxes, width, height),
            texts,
            colours,
            width=line,
            font=font_file(),
            font_size=max(10, round(min(height, width) / 32)),
        )
    return image.permute(1, 2, 0).contiguous().numpy()


def _edges(boxes: Tensor, width: int, height: int) -> Tensor:
    """The outermost pixels of boxes (n, 4) in [0, 1]; none lies outside the picture."""
    last = torch.tensor([width - 1, height - 1] * 2)
    return (boxes * torch.tensor([width, height] * 2)).floor().minimum(last)


def sheet(pictures: Sequence[Picture], columns: int = 4, side: int = CELL) -> Picture:
    """Pictures side by side, each fitted into a square of ``side`` pixels."""
    cells = []
    for picture in pictures:
        image = Image.fromarray(picture)
        image.thumbnail((side, side))
        cell = Image.new("RGB", (side, side))
        cell.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        cells.append(torch.from_numpy(np.array(cell)).permute(2, 0, 1))
    return make_grid(cells, nrow=columns, padding=2, pad_value=64).permute(1, 2, 0).contiguous().numpy()


def training_sheet(samples: Sequence[dict[str, Tensor]], classes: Sequence[str]) -> Picture:
    """What the model is trained on: samples of :class:`detection.transforms.TrainReader` with their boxes.

    Regions to ignore are outlined in white.
    """
    drawn = []
    for sample in samples:
        found = Boxes(sample["boxes"], sample["labels"])
        regions = Boxes(sample["ignored"], torch.zeros(len(sample["ignored"]), dtype=torch.int64))
        drawn.append(draw(sample["image"].permute(1, 2, 0).numpy(), found, classes, regions))
    return sheet(drawn)
