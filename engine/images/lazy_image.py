"""Images whose pixels are decoded when it is known how many are used: JPEG files by libjpeg-turbo, others by Pillow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from engine.data.read_ahead import read_file
from engine.images.image_io import BYTES_OF_PIXEL, MOST_BYTES, ImageArray, exif_turn, read_image, size_in_file
from engine.images.jpeg_end import COEFFICIENTS, GREY, scans

REDUCTIONS = (8, 4, 2)
"""By how much the sides of a JPEG file's image can be reduced while it is decoded, at less cost than afterwards."""
PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
"""Markers of the frames of Huffman-coded JPEG files: baseline, extended and progressive."""
TABLES = (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))
"""Markers of what may stand before the pixels besides: tables, restart intervals, comments, applications' data."""
PROGRESSIVE, START_OF_SCAN, APP1, FILL = 0xC2, 0xDA, 0xE1, 0xFF
END = b"\xff\xd9"
BLOCK = 8
"""Rows and columns that are stored together, of each channel."""
MARGIN = 3
"""Rows below those that are used, of the reduced image, on which these may depend: colours of fewer rows are
interpolated, and where a part of an image ends is rounded."""


class LazyImage:
    """An image of 8-bit RGB, upright.

    Args:
        width: Pixels across.
        height: Pixels down.
        decode: Gives the pixels, (height, width, 3), for a reduction n of 1 or, if ``reducible``, of
            :data:`REDUCTIONS`: sides that are an n-th, rounded up, or else the whole ones. Of a huge image there may be
            fewer from the beginning. Its second argument is how many rows of the unreduced image are used: what the
            others hold does not matter.
        reducible: Whether there are reductions.
    """

    def __init__(
        self, width: int, height: int, decode: Callable[[int, int], ImageArray], reducible: bool = False
    ) -> None:
        self.width, self.height, self.reducible = width, height, reducible
        self._decode = decode

    @classmethod
    def of(cls, image: Image.Image | ImageArray) -> LazyImage:
        """Makes one of pixels that are there: of Pillow in mode RGB, or (height, width, 3)."""
        if isinstance(image, Image.Image):
            pixels = np.array(image)
            return cls(*size_in_file(image), lambda reduction, rows: pixels)
        return cls(image.shape[1], image.shape[0], lambda reduction, rows: image)

    @property
    def size(self) -> tuple[int, int]:
        """Returns width and height."""
        return self.width, self.height

    def pixels(self, reduction: int = 1, rows: int | None = None) -> ImageArray:
        """Decodes the image, which nobody may change: (height, width, 3).

        Args:
            reduction: By what the sides are divided, if it is ``reducible``.
            rows: From the top, how many of the unreduced image are used; the others may hold anything. None: all.

        Raises:
            UserError: the file is broken, as far as it was decoded.
        """
        return self._decode(reduction, self.height if rows is None else rows)

    def pillow(self) -> Image.Image:
        """Returns the image as one of Pillow's."""
        return Image.fromarray(self.pixels())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ImageArray:
        return np.array(self.pixels(), dtype, copy=True)


def load_image(path: Path, content: bytes | None = None) -> LazyImage:
    """Loads the image in the file ``path``, of which ``content`` are the bytes, if they have been read already.

    Pixels are those of :func:`engine.images.image_io.read_image`, which reads all files but plain JPEG files, and
    those of which the decoder has something to say, or that end before their picture does.

    Raises:
        UserError: the file cannot be read, or is no image; of JPEG files that are damaged behind their header, only
            their pixels raise it.
    """
    content = read_file(path) if content is None else content
    plain = plain_jpeg(content) if content is not None else None
    if content is None or plain is None:  # Pillow's way, which also says what is wrong with a file
        return LazyImage.of(read_image(path, content))
    width, height, coefficients = plain.width, plain.height, plain.coefficients

    def decode(reduction: int, used: int) -> ImageArray:
        if (above := _upper_part(content, plain, reduction, used)) is not None:
            return above
        least = {"min_height": -(-height // reduction), "min_width": -(-width // reduction), "min_factor": reduction}
        try:
            pixels = simplejpeg.decode_jpeg(content, "RGB", **least)
        except ValueError:  # damaged; Pillow makes of it what can be made, or says why nothing can
            return np.array(read_image(path, content))
        if _may_lack_data(pixels) or (coefficients and scans(content)[0] != coefficients):
            return np.array(read_image(path, content))
        return pixels

    return LazyImage(width, height, decode, reducible=True)


def _may_lack_data(pixels: ImageArray) -> bool:
    """Returns whether pixels end in grey, as they do where the file ends before its picture does."""
    return all(value in GREY for value in pixels[-1, -1].tolist())


def _upper_part(content: bytes, plain: PlainJpeg, reduction: int, used: int) -> ImageArray | None:
    """Decodes rows from the top, of which the unreduced image has ``used`` or more; None: it has to be decoded whole.

    The decoder is told of an image that ends there. What it has to say of the data that follow is no fault; of data
    that are damaged or missing it makes what it makes of them in a whole image.
    """
    margin = 0 if reduction == 1 and plain.block_rows == BLOCK else MARGIN * reduction
    rows = -(-(used + margin) // plain.block_rows) * plain.block_rows
    if not plain.in_one_scan or rows >= plain.height or not content.endswith(END):
        return None
    pixels = np.empty((-(-plain.height // reduction), -(-plain.width // reduction), 3), np.uint8)
    part = pixels[: rows // reduction]
    least = {"min_height": part.shape[0], "min_width": part.shape[1], "min_factor": reduction}
    shorter = bytearray(content)
    shorter[plain.height_at : plain.height_at + 2] = rows.to_bytes(2, "big")
    try:
        found = simplejpeg.decode_jpeg(shorter, "RGB", **least, buffer=pixels, strict=False)
    except ValueError:
        return None
    return None if found.shape != part.shape or _may_lack_data(part) else pixels


class PlainJpeg(NamedTuple):
    """What the header of a JPEG file says of 8-bit grey or colour, stored upright and not huge."""

    width: int
    height: int
    coefficients: int
    """Where it comes in passes (progressive), how many a whole one has, else 0."""
    height_at: int
    """Where in the file the height stands, in two bytes."""
    block_rows: int
    """Rows of the blocks in which it is stored, of all channels together."""
    in_one_scan: bool
    """Whether all channels come together, from top to bottom."""


def plain_jpeg(content: bytes) -> PlainJpeg | None:
    """Returns what the header of such a file says; None of any other."""
    if content[:2] != b"\xff\xd8":
        return None
    place, frame, exif, turned = 2, (0, 0, 0, 0), b"", False
    while place + 4 <= len(content) and content[place] == FILL:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == FILL:
            place += 1
            continue
        body = place + 4
        if marker == START_OF_SCAN:
            upright = not turned and (not exif or exif_turn(exif) is None)
            width, height, blocks, at = frame
            if not upright or not 0 < width * height * BYTES_OF_PIXEL <= MOST_BYTES:
                return None
            count, progressive = content[at + 4], content[at - 4] == PROGRESSIVE
            together = not progressive and content[body : body + 1] == content[at + 4 : at + 5]
            return PlainJpeg(width, height, COEFFICIENTS * count * progressive, at, BLOCK * blocks, together)
        if marker in PLAIN_FRAMES:
            bits, channels = content[body : body + 1], content[body + 5 : body + 6]
            if bits != b"\x08" or channels not in (b"\x01", b"\x03"):
                return None
            height, width = (int.from_bytes(content[at : at + 2], "big") for at in (body + 1, body + 3))
            sampled = (both & 15 for both in content[body + 7 : body + 7 + 3 * channels[0] : 3])  # across and down
            frame = width, height, max(1, *sampled), body + 1
        elif marker == APP1:
            segment = content[body : place + 2 + length]
            exif += segment[6 * bool(exif) :] if segment.startswith(b"Exif\0\0") else b""
            turned = turned or b"tiff:Orientation" in segment  # in XMP, which Pillow reads where EXIF does not say
        elif marker not in TABLES:
            return None
        place += 2 + length
    return None
