"""Pictures with boxes on them, for people."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFont, ImageOps
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from detection.boxes import areas
from engine.figures import LONGEST, Tile, sheet, shortened
from engine.fonts import in_one_font

Picture = NDArray[np.uint8]
"""(height, width, 3), red, green and blue."""

Colour = tuple[int, int, int]

TRUTH_COLOUR = (255, 255, 255)

CELL = 360
"""Pixels of the longer side of a picture on a sheet."""
COLUMNS = 4
"""Pictures in a row of a sheet."""


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

    def reversed(self) -> Boxes:
        """In the other order."""
        scores = None if self.scores is None else self.scores.flip(0)
        return Boxes(self.boxes.flip(0), self.labels.flip(0), scores)


def class_colour(label: int) -> Colour:
    """A strong colour of a class's own; neighbours differ most."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _readable_on(colour: Colour) -> Colour:
    """Black or white, whichever differs more in luminance (ITU-R BT.601)."""
    bright = np.dot(colour, (0.299, 0.587, 0.114)) > 110
    return (0, 0, 0) if bright else (255, 255, 255)


def draw(picture: Picture, found: Boxes, classes: Sequence[str], truth: Boxes | None = None) -> Picture:
    """``picture`` with boxes in the colours of their classes, named where there is room, with scores if they have any.

    Of ``truth`` only outlines are drawn, in white, below the others.
    """
    image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
    height, width = picture.shape[:2]
    line = max(1, round(min(height, width) / 200))
    if truth is not None and len(truth.boxes):
        image = draw_bounding_boxes(image, _edges(truth.boxes, width, height), colors=TRUTH_COLOUR, width=line)
    if len(found.boxes):
        found = found.reversed()  # the best is drawn last and seen whole
        edges, size = _edges(found.boxes, width, height), max(10, round(min(height, width) / 32))
        colours = [class_colour(label) for label in found.labels.tolist()]
        texts, file = _names_that_fit(found, classes, edges, size)
        image = draw_bounding_boxes(
            image,
            edges,
            texts,
            colours,
            width=line,
            fill_labels=True,
            label_colors=[_readable_on(colour) for colour in colours],
            font=str(file),
            font_size=size,
        )
    return image.permute(1, 2, 0).contiguous().numpy()


def _names_that_fit(found: Boxes, classes: Sequence[str], edges: Tensor, size: int) -> tuple[list[str | None], Path]:
    """What is written in each box in letters of ``size`` pixels, and their font; None where it would hide the box."""
    texts = [shortened(" ".join(classes[label].split()), LONGEST) for label in found.labels.tolist()]
    if found.scores is not None:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, found.scores.tolist(), strict=True)]
    texts, file = in_one_font(texts)
    font, room = ImageFont.truetype(file, size), areas(edges).tolist()
    fits = [2 * font.getlength(text) * size <= area for text, area in zip(texts, room, strict=True)]
    return [text if fitting else None for text, fitting in zip(texts, fits, strict=True)], file


def _edges(boxes: Tensor, width: int, height: int) -> Tensor:
    """The outermost pixels of boxes (n, 4) in [0, 1]; none lies outside the picture."""
    last = torch.tensor([width - 1, height - 1] * 2)
    return (boxes * torch.tensor([width, height] * 2)).floor().minimum(last)


def fit(picture: Picture | Image.Image) -> Picture:
    """A picture scaled to a sheet's cell; before boxes are drawn on it, so that their names can be read."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    return np.array(ImageOps.contain(image, (CELL, CELL), Image.Resampling.BICUBIC))


def training_sheet(samples: Sequence[dict[str, Tensor]], classes: Sequence[str]) -> Picture:
    """What the model is trained on: samples of :class:`detection.transforms.TrainReader` with their boxes.

    Regions to ignore are outlined in white.
    """
    drawn = []
    for sample in samples:
        found = Boxes(sample["boxes"], sample["labels"])
        regions = Boxes(sample["ignored"], torch.zeros(len(sample["ignored"]), dtype=torch.int64))
        drawn.append(draw(fit(sample["image"].permute(1, 2, 0).numpy()), found, classes, regions))
    return sheet([Tile(Image.fromarray(picture), []) for picture in drawn], COLUMNS, CELL)
