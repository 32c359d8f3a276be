"""Reading and writing pictures: one path for every task and every format, to 8-bit RGB as a person would see it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import UserError
from engine.files import write_atomic

Picture = NDArray[np.uint8]
"""(height, width, 3), red, green and blue."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by the value of EXIF's orientation tag."""


def read_picture(path: Path) -> Image.Image:
    """Reads the image in the file ``path`` as 8-bit RGB, fully decoded and turned upright as its EXIF data say.

    Transparent parts are shown on white, greyscale (8 or 16 bits), palette and CMYK pictures are converted, and of an
    animation the first frame is taken.

    Raises:
        UserError: the file is missing, broken, truncated, of no known format, has floating-point pixels, or would
            unpack to more than 178 million pixels (Pillow's limit against decompression bombs).
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            return to_rgb(upright(picture))
    except FileNotFoundError:
        raise UserError(f"{path}: no such picture") from None
    except Exception as error:  # a decoder that meets broken data raises whatever its parsing trips over
        reason = "it is empty" if path.is_file() and path.stat().st_size == 0 else str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read as a picture ({reason}); repair, replace or remove it") from None


def upright(picture: Image.Image) -> Image.Image:
    """Returns ``picture`` turned and mirrored as its EXIF orientation asks; unreadable EXIF data count as none."""
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # written by many cameras and tools, and not always well; the pixels are fine
        return picture
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def may_be_sideways(picture: Image.Image) -> bool:
    """Returns whether the beginning of an opened file asks for a quarter turn of ``picture``; decodes no pixels."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return False  # what may follow behind the pixels is seen when they are decoded
    try:
        return picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:  # as above
        return False


def to_rgb(picture: Image.Image) -> Image.Image:
    """Converts ``picture`` to 8-bit RGB.

    Raises:
        ValueError: its pixels are floating-point numbers, whose range is unknown.
    """
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode == "F":
        raise ValueError("floating-point pixels; convert them to 8 or 16 bits")
    if picture.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip to 255
        values = np.asarray(picture).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if picture.mode.lower() in ("rgba", "la", "pa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def write_picture(path: Path, picture: Picture) -> None:
    """Replaces the PNG file ``path`` by ``picture``; makes its folder.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())
