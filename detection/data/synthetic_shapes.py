"""A data set that needs no files: coloured shapes on photographs or noise, drawn when they are asked for.

Which shapes an image has, and where, follows from (seed, split, number) alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from detection.data.annotations import Annotations
from detection.data.sections import ShapesData
from engine.errors import UserError
from engine.images.lazy_image import LazyImage
from engine.seed import generator

FINER = 3
"""Shapes are drawn so many times larger and then made smaller, so that their edges are smooth."""
ATTEMPTS = 20
"""Places tried for a shape before it is left out."""
MOST_OVERLAP = 0.1
"""Part of the smaller of two boxes that may be covered by the other."""


@dataclass(frozen=True)
class Drawn:
    """One shape of an image."""

    label: int
    outlines: list[NDArray[np.float64]]
    """Points (K, 2) of the outer edge in pixels, and of a hole if there is one."""
    colour: tuple[int, int, int]

    @property
    def box(self) -> NDArray[np.float64]:
        """(4,) xyxy in pixels."""
        return np.concatenate([self.outlines[0].min(axis=0), self.outlines[0].max(axis=0)])


class ShapeImages:
    """One split; see :class:`detection.data.annotations.AnnotatedImages`."""

    def __init__(self, config: ShapesData, split: str) -> None:
        if split == "test":
            raise UserError("data.source: shapes has no test split besides val, which holds its held-out images")
        self._config, self._split = config, split
        count = config.train_images if split == "train" else config.val_images
        shapes = [layout(config, split, index) for index in range(count)]
        boxes = np.array([shape.box for image in shapes for shape in image]).reshape(-1, 4)
        height, width = config.canvas_size
        self.annotations = Annotations(
            classes=list(config.classes),
            category_ids=list(range(1, len(config.classes) + 1)),
            image_ids=np.arange(1, count + 1),
            sizes=np.tile(np.array([width, height]), (count, 1)),
            starts=np.cumsum([0, *map(len, shapes)]),
            boxes=boxes,
            labels=np.array([shape.label for image in shapes for shape in image], np.int64),
            crowd=np.zeros(len(boxes), bool),
            areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        )

    def __len__(self) -> int:
        return len(self.annotations)

    def name(self, index: int) -> str:
        return f"{self._split}_{index + 1:05d}.png"

    wait_seconds = 0.0

    def announce(self, indices: Iterable[int], threads: int) -> None:
        """Does nothing: there are no files."""

    def image(self, index: int) -> LazyImage:
        return LazyImage.of(draw(self._config, self._split, index))


def layout(config: ShapesData, split: str, index: int) -> list[Drawn]:
    """Draws lots for the shapes of an image, those drawn last at the end; they hardly cover each other."""
    rng = generator(config.seed, "shapes", split, index)
    height, width = config.canvas_size
    placed: list[Drawn] = []
    for _ in range(rng.integers(0, config.max_objects + 1)):
        label = int(rng.integers(len(config.classes)))
        colour = _colour(rng)
        for _ in range(ATTEMPTS):
            radius = rng.uniform(*config.scale) * min(height, width) / 2
            outlines = outline(config.classes[label], radius, rng.uniform(0, 2 * math.pi))
            reach = np.abs(outlines[0]).max(axis=0)
            middle = reach + rng.uniform(size=2) * (np.array([width, height]) - 2 * reach)
            shape = Drawn(label, [points + middle for points in outlines], colour)
            if not any(_covered(shape.box, other.box) > MOST_OVERLAP for other in placed):
                placed.append(shape)
                break
    return placed


def outline(name: str, radius: float, angle: float) -> list[NDArray[np.float64]]:
    """Returns points (K, 2) of a shape around the origin within ``radius``, turned by ``angle``; then its hole's."""
    if name in ("circle", "ring"):
        outer = _polar(np.full(48, radius), angle)
        return [outer, outer * 0.55] if name == "ring" else [outer]
    if name == "cross":
        arm = np.array([[1, 0.3], [0.3, 0.3], [0.3, 1], [-0.3, 1]]) / math.hypot(1, 0.3)
        quarter = np.array([[0, 1], [-1, 0]])
        points = np.concatenate([arm @ np.linalg.matrix_power(quarter, turn) for turn in range(4)])
        cosine, sine = math.cos(angle), math.sin(angle)
        return [radius * points @ np.array([[cosine, sine], [-sine, cosine]])]
    radii = {"square": [1.0] * 4, "triangle": [1.0] * 3, "star": [1.0, 0.42] * 5}[name]
    return [_polar(radius * np.array(radii), angle)]


def draw(config: ShapesData, split: str, index: int) -> Image.Image:
    """Draws an image with its shapes, 8-bit RGB."""
    height, width = config.canvas_size
    image = _background(config, generator(config.seed, "background", split, index))
    for shape in layout(config, split, index):
        mask = Image.new("L", (width * FINER, height * FINER))
        pencil = ImageDraw.Draw(mask)
        for points, value in zip(shape.outlines, (255, 0), strict=False):
            pencil.polygon([tuple(point) for point in (points * FINER).tolist()], fill=value)
        image.paste(shape.colour, mask=mask.resize((width, height), Image.Resampling.BOX))
    return image


def _polar(radii: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    angles = angle + np.linspace(0, 2 * math.pi, len(radii), endpoint=False)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _covered(box: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Common area as a part of the smaller box's."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    areas = [(each[2:] - each[:2]).prod() for each in (box, other)]
    return float(np.clip(sides, 0, None).prod() / min(areas))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """A strong colour: one channel high, one low, one anything."""
    values = [int(rng.integers(200, 256)), int(rng.integers(0, 56)), int(rng.integers(0, 256))]
    red, green, blue = (values[place] for place in rng.permutation(3))
    return red, green, blue


def _background(config: ShapesData, rng: np.random.Generator) -> Image.Image:
    height, width = config.canvas_size
    kind = ("photos", "noise")[rng.integers(2)] if config.background == "mixed" else config.background
    if kind == "noise":
        layers = np.zeros((height, width, 3))
        for grain in (1, 4, 16):
            coarse = rng.uniform(0, 255, (-(-height // grain), -(-width // grain), 3)).astype(np.uint8)
            layers += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) / 3
        return Image.fromarray(layers.astype(np.uint8))
    photo = _photos()[rng.integers(2)]
    part = rng.uniform(0.3, 1.0) * min(photo.width / width, photo.height / height)
    left, top = rng.uniform(size=2) * (photo.width - part * width, photo.height - part * height)
    area = (float(left), float(top), float(left + part * width), float(top + part * height))
    return photo.resize((width, height), Image.Resampling.BILINEAR, box=area)


@cache
def _photos() -> list[Image.Image]:
    """scikit-learn's two photographs, of a temple and of a flower: 640 x 427 pixels, CC BY."""
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(array) for array in load_sample_images().images]
