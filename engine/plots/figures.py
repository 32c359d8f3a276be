"""Figures and sheets of images: drawn without a display, as PNG files and as images for TensorBoard."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.images.image_io import ImageArray
from engine.plots.fonts import give_fonts, in_one_font, readable
from engine.text import LONGEST, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TILE = 176
"""Pixels of a sheet's tile."""
MARGIN = 6
LINE = 16
"""Pixels of a caption's line."""


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Makes a figure of a size in inches.

    Without a layout its axes are to be placed: quicker by far than to have matplotlib find room for labels.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def as_image(figure: Figure, dots_per_inch: int = 110) -> ImageArray:
    """Renders ``figure`` as pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    give_fonts(figure)
    figure.set_dpi(dots_per_inch)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():  # of each character that no font has: in names that went not through shown_name
        warnings.simplefilter("ignore", UserWarning)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def shown_name(name: str) -> str:
    """Returns ``name`` as a figure's label: on one line, not too long, and with dollar signs that begin no formula.

    What no font of this machine can draw is written as numbers, see :func:`engine.plots.fonts.readable`.
    """
    return shortened(readable(" ".join(name.split())), LONGEST).replace("$", r"\$")


@dataclass(frozen=True)
class Tile:
    """An image of a sheet."""

    image: Image.Image
    caption: Sequence[tuple[str, str]]
    """Lines of text beneath it, each with its colour."""


def sheet(tiles: Sequence[Tile], columns: int, side: int = TILE) -> ImageArray:
    """Draws images in rows, left to right, each scaled to fit into a square of ``side`` pixels, over its caption.

    Rows are as high as the highest image.
    """
    fitted = [_fitted(tile.image, side) for tile in tiles]
    columns, high = max(1, min(columns, len(tiles))), max((image.height for image in fitted), default=0)
    width = side + MARGIN
    height = high + 2 * MARGIN + LINE * max((len(tile.caption) for tile in tiles), default=0)
    rows = -(-len(tiles) // columns)
    canvas = Image.new("RGB", (columns * width + MARGIN, max(rows, 1) * height + MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    for place, (tile, image) in enumerate(zip(tiles, fitted, strict=True)):
        left, top = MARGIN + place % columns * width, MARGIN + place // columns * height
        canvas.paste(image, (left + (side - image.width) // 2, top + high - image.height))
        for number, (text, colour) in enumerate(tile.caption):
            (text,), file = in_one_font([text])
            font = _font(file)
            draw.text((left, top + high + 2 + number * LINE), _fits(text, font, side), fill=colour, font=font)
    return np.asarray(canvas)


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """Scales to a tile, the pixels of tiny images kept sharp."""
    method = Image.Resampling.NEAREST if max(image.size) <= side // 3 else Image.Resampling.BICUBIC
    return contained(image, side, method)


def contained(image: Image.Image, side: int, method: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """Scales ``image`` so that its longer side has ``side`` pixels, and the shorter one at least one.

    ``ImageOps.contain`` for a square, which leaves no pixel of a strip.
    """
    longer = max(image.size)
    width, height = (side if own == longer else max(1, round(own / longer * side)) for own in image.size)
    return image.resize((width, height), method)


def _fits(text: str, font: ImageFont.FreeTypeFont, width: int = TILE) -> str:
    """Returns as much of ``text`` as is no wider than ``width`` pixels."""
    text, length = " ".join(text.split()), len(text)
    while font.getlength(short := shortened(text, length)) > width and length > 1:
        length -= 1
    return short


@cache
def _font(file: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, 12)
