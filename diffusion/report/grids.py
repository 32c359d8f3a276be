"""Sheets of generated images: in rows by class or by epoch, and beside the training images that they are nearest to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffusion.metrics.measure import Copy, as_rgb
from engine.images.image_io import ImageArray
from engine.images.lazy_image import LazyImage
from engine.plots.figures import Tile, sheet
from engine.plots.fonts import in_one_font
from engine.text import LONGEST, shortened

ENOUGH = 64
"""Pixels of a side from which on images are shown as they are; smaller ones are enlarged by a whole factor, so that
their pixels stay sharp."""
GAP = 2
"""White pixels around an image."""
COLUMNS = 10
"""Most images in a row."""
LETTERS = 12
NEAREST_COLUMNS = 4


def enlargement(size: tuple[int, int]) -> int:
    """Returns the factor by which images of ``size`` are enlarged."""
    return max(1, ENOUGH // max(size))


def grid(images: Tensor, columns: int) -> ImageArray:
    """Draws uint8 images (N, C, H, W) in rows, left to right."""
    return sample_grid(rows_by_class(images, None, [], columns))


def sample_grid(rows: Mapping[str, Tensor]) -> ImageArray:
    """Draws rows of images, each behind its name, such as a class or an epoch: (height, width, 3).

    Args:
        rows: uint8 (B, C, H, W) of one channel or three, by name; C, H and W are the same in all rows.
    """
    pictures = [_enlarged(images) for images in rows.values()]
    high, wide = pictures[0].shape[1:3]
    names, file = in_one_font([shortened(" ".join(name.split()), LONGEST) for name in rows])
    font = ImageFont.truetype(file, LETTERS)
    margin = max(int(font.getlength(name)) for name in names) + 3 * GAP if any(names) else 0
    columns = max(map(len, pictures))
    size = margin + columns * (wide + GAP) + GAP, len(pictures) * (high + GAP) + GAP
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for row, (name, images) in enumerate(zip(names, pictures, strict=True)):
        top = GAP + row * (high + GAP)
        draw.text((GAP, top + high // 2), name, fill="black", font=font, anchor="lm")
        for column, image in enumerate(images):
            canvas.paste(Image.fromarray(image), (margin + GAP + column * (wide + GAP), top))
    return np.asarray(canvas)


def rows_by_class(images: Tensor, labels: Tensor | None, classes: Sequence[str], columns: int) -> dict[str, Tensor]:
    """Returns the first `columns` images of each class that has some, for :func:`sample_grid`; without labels, rows of
    so many images, whose names are blanks.
    """
    if labels is None:
        return {" " * place: part for place, part in enumerate(images.split(columns))}
    found = {name: images[labels == number][:columns] for number, name in enumerate(classes)}
    return {name: part for name, part in found.items() if len(part)}


def nearest_sheet(copies: Sequence[Copy], train_image: Callable[[int], LazyImage]) -> ImageArray:
    """Draws samples, each on the left of the training image that it is nearest to.

    Args:
        copies: The samples.
        train_image: Returns a training image by its number, as `LabelledImages.image` does.
    """
    tiles = []
    for copy in copies:
        sample = Image.fromarray(copy.image)
        trained_on = train_image(copy.train).pillow().resize(sample.size, Image.Resampling.BICUBIC)
        pair = Image.fromarray(np.concatenate([copy.image, np.asarray(trained_on)], axis=1))
        captions = [(f"{copy.distance:.4g} apart", "black"), (f"sample {copy.sample}, train {copy.train}", "dimgrey")]
        tiles.append(Tile(pair, captions))
    return sheet(tiles, NEAREST_COLUMNS)


def array_of(image: Tensor) -> ImageArray:
    """Returns uint8 (C, H, W) as (H, W), grey, or (H, W, 3)."""
    return image[0].numpy() if len(image) == 1 else as_rgb(image)


def _enlarged(images: Tensor) -> NDArray[np.uint8]:
    """Returns images (B, H, W, 3), each pixel a square of pixels where there are few."""
    factor = enlargement((images.shape[2], images.shape[3]))
    return np.stack([as_rgb(image) for image in images]).repeat(factor, 1).repeat(factor, 2)
