"""Reading and writing images: one path for every task and every format, to 8-bit RGB as a person would see it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from engine.errors import UserError
from engine.files import write_atomic

ImageArray = NDArray[np.uint8]
"""(height, width, 3), red, green and blue."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by the value of EXIF's orientation tag."""


AT_ONCE = 1 << 24
"""Pixels that are converted to RGB together."""
LONGEST = 1_000_000
"""Pixels of a side; more is a mistake in the file."""
FLOATS = "floating-point pixels; convert them to 8 or 16 bits"
HUGE = 89_478_485
"""Pixels of an image that is worth a word before it is read, which takes four bytes for each and at times eight."""


def read_image(path: Path) -> Image.Image:
    """Reads the image in the file ``path`` as 8-bit RGB, fully decoded and turned upright as its EXIF data say.

    Transparent parts are shown on white, greyscale (8 or 16 bits), palette and CMYK images are converted, and of an
    animation the first frame is taken.

    Raises:
        UserError: the file is missing, may not be read, is broken, truncated, of no known format, has floating-point
            pixels, or would unpack to more than 178 million pixels (Pillow's limit against decompression bombs).
    """
    try:
        with open_image(path) as image:
            image.load()
            return to_rgb(upright(image))
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; ask for permission, or remove it") from None
    except Exception as error:  # a decoder that meets broken data raises whatever its parsing trips over
        reason = "it is empty" if path.is_file() and path.stat().st_size == 0 else str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason}); repair, replace or remove it") from None


def open_image(path: Path) -> Image.Image:
    """Opens an image by its header, which decodes nothing.

    Raises:
        OSError: the file cannot be read.
        Exception: it is no image, or, as a ValueError says, one of which :func:`read_image` makes nothing.
    """
    image = Image.open(path)
    fault = ""
    if image.mode == "F":
        fault = FLOATS
    elif max(image.size) > LONGEST:  # each row costs Pillow a pointer besides its pixels
        fault = f"it has {image.width} x {image.height} pixels, which no picture has"
    elif image.format == "EPS" or isinstance(image, ImageFile.StubImageFile):  # Pillow would have Ghostscript run EPS
        fault = f"a file of the format {image.format}; convert it to PNG"
    if fault:
        image.close()
        raise ValueError(fault)
    return image


def upright(image: Image.Image) -> Image.Image:
    """Returns ``image`` turned and mirrored as its EXIF orientation asks; unreadable EXIF data count as none."""
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def may_be_sideways(image: Image.Image) -> bool:
    """Returns whether the beginning of an opened file asks for a quarter turn of ``image``; decodes no pixels."""
    if image.format == "PNG" and "exif" not in image.info:
        return False  # what may follow behind the pixels is seen when they are decoded
    return _orientation(image) in (5, 6, 7, 8)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # written by many cameras and tools, and not always well; the pixels are fine
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts ``image`` to 8-bit RGB; a very large one part by part, since what lies in between is several times it.

    Raises:
        ValueError: its pixels are floating-point numbers, whose range is unknown.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError(FLOATS)
    rows = max(1, AT_ONCE // image.width)
    if rows >= image.height:
        return _converted(image)
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        whole.paste(_converted(part), (0, top))
    return whole


def _converted(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip to 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode.lower() in ("rgba", "la", "pa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def write_image(path: Path, image: ImageArray) -> None:
    """Replaces the PNG file ``path`` by ``image``; makes its folder.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())
