"""Reading and writing images: one path for every task and every format, to 8-bit RGB as a person would see it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from engine.data.unreadable import TRANSIENT, UnreadableError, storage_error
from engine.files import other_than_file, write_atomic
from engine.images.jpeg_end import is_cut_off

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
QUARTER_TURNS = (5, 6, 7, 8)
JPEG = ("JPEG", "MPO")
"""Pillow's names of the format."""

AT_ONCE = 1 << 21
"""Pixels that are converted to RGB together."""
MOST_BYTES = 550 * 10**6
"""What an image may take while it is read; a larger one is decoded smaller where its format can be, else refused."""
BYTES_OF_PIXEL = 20
"""What none takes more of while it is read."""
_OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2}
"""Bytes that Pillow keeps of a pixel, where these are not four."""
_OF_FORMAT = {"WEBP": 12, "AVIF": 12, "JPEG2000": 16, "QOI": 3, "DDS": 3, "SGI": 3}
"""Bytes that decoders take for a pixel besides."""
SIZE_IN_FILE = "size_in_file"
"""Where an image that was decoded smaller has its own size."""
LONGEST = 1_000_000
"""Pixels of a side; more is a mistake in the file."""
FLOATS = "floating-point pixels; convert them to 8 or 16 bits"
HUGE = 89_478_485
"""Pixels of an image that is worth a word before it is read."""


def read_image(path: Path, content: bytes | None = None) -> Image.Image:
    """Reads the image in the file ``path`` as 8-bit RGB, fully decoded and turned upright as its EXIF data say.

    ``content``: the file's bytes, if they have been read already.

    Transparent parts are shown on white, greyscale (8 or 16 bits), palette and CMYK images are converted, and of an
    animation the first frame is taken. A JPEG or JPEG 2000 that would take more than :data:`MOST_BYTES` is decoded to a
    half, a quarter or an eighth of its sides (:func:`size_in_file`).

    Raises:
        UnreadableError: the file is missing, may not be read, is none but a pipe or the like, is broken, truncated
            (of a JPEG, whatever end it has), of no known format, has floating-point pixels, or would take too much
            memory.
    """
    try:
        with open_image(path if content is None else io.BytesIO(content)) as image:
            size, part = image.size, _part(image)
            if part > 1 and image.format == "JPEG2000":
                image.reduce = part.bit_length() - 1  # type: ignore[method-assign,assignment]
            elif part > 1:
                image.draft(None, (size[0] // part, size[1] // part))
            image.load()
            if image.format in JPEG and is_cut_off(image, path, content):
                raise OSError("image file is truncated: its data end before its picture does")
            turned, is_turned = upright(image), _orientation(image) in QUARTER_TURNS
        del image  # frees its pixels, if the turned ones are others
        picture = to_rgb(turned)
        if part > 1:
            picture.info[SIZE_IN_FILE] = size[::-1] if is_turned else size
        return picture
    except FileNotFoundError:
        raise UnreadableError(f"{path}: no such image", str(path)) from None
    except PermissionError as error:
        text = f"{path}: cannot be read: {error.strerror}; ask for permission, or remove it"
        raise UnreadableError(text, str(path)) from None
    except Exception as error:  # a decoder that meets broken data raises whatever its parsing trips over
        if isinstance(error, OSError) and error.errno in TRANSIENT:
            raise storage_error(path, error) from None
        if content is not None and os.path.exists(path):  # what it has to say of a file names it
            return read_image(path)
        if isinstance(error, UnidentifiedImageError) and content is not None:
            error = OSError("cannot identify image file")  # else it names an object in memory
        reason = "it is empty" if path.is_file() and path.stat().st_size == 0 else str(error) or type(error).__name__
        text = f"{path}: cannot be read as an image ({reason}); repair, replace or remove it"
        raise UnreadableError(text, str(path)) from None


def size_in_file(image: Image.Image) -> tuple[int, int]:
    """Returns width and height of an image that :func:`read_image` has read before it was made smaller, if it was."""
    return image.info.get(SIZE_IN_FILE, image.size)


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Opens an image, in a file or in memory, by its header, which decodes nothing.

    Raises:
        OSError: the file cannot be read.
        Exception: it is no image, or, as a ValueError says, one of which :func:`read_image` makes nothing.
    """
    if isinstance(source, Path) and (kind := other_than_file(source)):  # a pipe would wait for whoever writes into it
        raise ValueError(f"it is {kind}, no file")
    image = Image.open(source)
    fault = ""
    if image.mode == "F":
        fault = FLOATS
    elif max(image.size) > LONGEST:  # each row costs Pillow a pointer besides its pixels
        fault = f"it has {image.width} x {image.height} pixels, which no picture has"
    elif image.format == "EPS" or isinstance(image, ImageFile.StubImageFile):  # Pillow would have Ghostscript run EPS
        fault = f"a file of the format {image.format}; convert it to PNG"
    elif not _part(image):
        fault = f"it has {image.width} x {image.height} pixels, more than can be read of a {image.mode} {image.format} "
        fault += f"within {MOST_BYTES / 1e9:.2g} GB; make a smaller one of it"
    if fault:
        image.close()
        raise ValueError(fault)
    return image


def _part(image: Image.Image) -> int:
    """Returns what the sides of an opened image are divided by when it is decoded; 0 if it takes too much memory."""
    pixels, known = image.width * image.height, _OF_MODE.get(image.mode, 4)
    if pixels * BYTES_OF_PIXEL <= MOST_BYTES:
        return 1
    passes, after = 0.0, 0 if image.mode == "RGB" and "transparency" not in image.info else 4
    if image.format != "PNG" or "exif" in image.info:  # else the pixels would be decoded for it
        after = max(after, known if _orientation(image) != 1 else 0)
    if "progressive" in image.info:  # Pillow has the samples of each channel in a block: two bytes each, until all are
        samples = [across * down for _, across, down, _ in image.layer]  # type: ignore[attr-defined]
        passes = 2 * sum(samples) / max(samples)
    after = max(after, _OF_FORMAT.get(image.format or "", 0))
    for part in (1, 2, 4, 8) if image.format in (*JPEG, "JPEG2000") else (1,):
        if pixels * max(passes + known / part**2, (known + after) / part**2) <= MOST_BYTES:
            return part
    return 0


def upright(image: Image.Image) -> Image.Image:
    """Returns ``image`` turned and mirrored as its EXIF orientation asks; unreadable EXIF data count as none."""
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def exif_turn(exif: bytes) -> Image.Transpose | None:
    """Returns what turns an image upright that comes with these EXIF data; None if it is, or they are unreadable."""
    try:
        data = Image.Exif()
        data.load(exif)
        return _UPRIGHT.get(data.get(ExifTags.Base.Orientation, 1))
    except Exception:  # see `_orientation`
        return None


def may_be_sideways(image: Image.Image) -> bool:
    """Returns whether the beginning of an opened file asks for a quarter turn of ``image``; decodes no pixels."""
    if image.format == "PNG" and "exif" not in image.info:
        return False  # what may follow behind the pixels is seen when they are decoded
    return _orientation(image) in QUARTER_TURNS


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
