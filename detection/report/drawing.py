"""Images with boxes on them, for people."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from engine.images.image_io import ImageArray
from engine.plots.figures import Tile, contained, sheet
from engine.plots.fonts import in_one_font
from engine.text import LONGEST, shortened

Colour = tuple[int, int, int]

Edges = tuple[int, int, int, int]
"""Left, top, right and bottom, the outermost pixels."""

TRUTH_COLOUR = (255, 255, 255)

CELL = 360
"""Pixels of the longer side of an image on a sheet."""
COLUMNS = 4
"""Images in a row of a sheet."""
MOST_BOXES = 50
"""Detections that are drawn on an image, the best ones: of more, none could be told from the others."""


@dataclass(frozen=True)
class Boxes:
    """Boxes (n, 4), xyxy in [0, 1], with labels (n,) and perhaps scores (n,), the best first."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor | None = None


def class_colour(label: int) -> Colour:
    """Returns a strong colour of a class's own; neighbours differ most."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(pixels: ImageArray, found: Boxes, classes: Sequence[str], truth: Boxes | None = None) -> ImageArray:
    """Draws boxes in the colours of their classes, named where there is room, with scores if they have any.

    A better box lies over a worse one, and all names over the boxes. Of more detections than :data:`MOST_BOXES` the
    best are drawn. Of ``truth`` only outlines are drawn, in white, below the others.
    """
    if found.scores is not None:
        found = Boxes(found.boxes[:MOST_BOXES], found.labels[:MOST_BOXES], found.scores[:MOST_BOXES])
    image = Image.fromarray(pixels)
    pen, shorter = ImageDraw.Draw(image), min(image.size)
    line = max(1, round(shorter / 200))
    for edges in _edges(truth.boxes, image.size) if truth is not None else ():
        pen.rectangle(edges, outline=TRUTH_COLOUR, width=line)
    boxes, colours = _edges(found.boxes, image.size), list(map(class_colour, found.labels.tolist()))
    for edges, colour in reversed(list(zip(boxes, colours, strict=True))):
        pen.rectangle(edges, outline=colour, width=line)
    texts, file = in_one_font(_names(found, classes))
    font = ImageFont.truetype(file, max(10, round(shorter / 32)))
    for text, colour, place in zip(texts, colours, name_places(texts, boxes, font, image.size), strict=True):
        if place is not None:
            pen.rectangle(place, fill=colour)
            bright = np.dot(colour, (0.299, 0.587, 0.114)) > 110  # luminance (ITU-R BT.601)
            pen.text((place[0] + 1, place[1]), text, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)
    return np.array(image)


def name_places(
    texts: Sequence[str], boxes: Sequence[Edges], font: ImageFont.FreeTypeFont, size: tuple[int, int]
) -> list[Edges | None]:
    """Finds room for names: in a corner of their boxes, within an image of ``size`` pixels (width, height).

    None where a name would hide more than half of its box, or in all four corners part of the name of an earlier one.
    """
    places: list[Edges | None] = []
    high = sum(font.getmetrics())
    for text, (left, top, right, bottom) in zip(texts, boxes, strict=True):
        wide, found = math.ceil(font.getlength(text)) + 2, None
        if 2 * wide * high <= (right - left) * (bottom - top):
            for x, y in ((left, top), (left, bottom - high), (right - wide, top), (right - wide, bottom - high)):
                x, y = max(0, min(x, size[0] - wide)), max(0, min(y, size[1] - high))
                corner = (x, y, x + wide - 1, y + high - 1)
                if not any(place is not None and _overlap(place, corner) for place in places):
                    found = corner
                    break
        places.append(found)
    return places


def _overlap(one: Edges, other: Edges) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _names(found: Boxes, classes: Sequence[str]) -> list[str]:
    texts = [shortened(" ".join(classes[label].split()), LONGEST) for label in found.labels.tolist()]
    if found.scores is None:
        return texts
    return [f"{text} {score:.2f}" for text, score in zip(texts, found.scores.tolist(), strict=True)]


def _edges(boxes: Tensor, size: tuple[int, int]) -> list[Edges]:
    """The outermost pixels of boxes (n, 4) in [0, 1] on an image of ``size``; none lies outside it."""
    scale = torch.tensor(size * 2)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in (boxes * scale).floor().minimum(scale - 1).int().tolist()]


def fit(pixels: ImageArray | Image.Image) -> ImageArray:
    """Scales an image to a sheet's cell; before boxes are drawn on it, so that their names can be read."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    return np.array(contained(image, CELL))


def training_sheet(samples: Sequence[dict[str, Tensor]], classes: Sequence[str]) -> ImageArray:
    """Draws samples of :class:`detection.augmentation.transforms.TrainReader` with their boxes.

    Regions to ignore are outlined in white.
    """
    drawn = []
    for sample in samples:
        found = Boxes(sample["boxes"], sample["labels"])
        regions = Boxes(sample["ignored"], torch.zeros(len(sample["ignored"]), dtype=torch.int64))
        drawn.append(draw(fit(sample["image"].permute(1, 2, 0).numpy()), found, classes, regions))
    return sheet([Tile(Image.fromarray(image), []) for image in drawn], COLUMNS, CELL)
