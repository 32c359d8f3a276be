"""JPEG files whose data end before their picture does: decoders make the rest grey, and say nothing."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

from PIL import Image

_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
"""What begins a part of the file, perhaps behind more of 0xFF; the data of a scan have none."""
_START_OF_SCAN, _END, _ALONE = 0xDA, 0xD9, (0xD8, 0x01)
COEFFICIENTS = 64
"""Of a channel: those of a block of 8 x 8 pixels."""
GREY = (127, 128)
"""Of each channel, CMYK's inverted ones included, where a decoder has no data."""


def _noise() -> bytes:
    """Data that any decoder takes for more of a picture, in whichever interval between restarts it is."""
    source = random.Random(0)
    parts = (source.randbytes(512).replace(b"\xff", b"\0") + bytes([0xFF, 0xD0 + k % 8]) for k in range(16))
    return b"".join(parts)


def is_cut_off(image: Image.Image, path: Path, content: bytes | None = None) -> bool:
    """Returns whether a decoded JPEG has less data than its size asks for, though it may have an end marker.

    Its last pixel is grey then, or, where it comes in passes of increasing detail (progressive), some are missing.
    Where that is so, which is rare, the file is decoded again with noise before its end marker: only a picture that
    lacks data shows any of it. Damage that leaves enough data is not seen, nor is a loss within the last pass.
    """
    passes = "progressive" in image.info
    pixel = image.getpixel((image.width - 1, image.height - 1))
    grey = all(value in GREY for value in (pixel if isinstance(pixel, tuple) else (pixel,)))
    if not (grey or passes):
        return False
    data = path.read_bytes() if content is None else content
    precise, end = scans(data)
    if not grey and precise == COEFFICIENTS * len(image.getbands()):
        return False
    scale = 1 if passes else 8  # grey is seen in a small picture, too
    return _pixels(data, scale) != _pixels(data[:end] + _noise() + data[end:], scale)


def scans(data: bytes) -> tuple[int, int]:
    """Returns how many coefficients, over all channels, have come in full precision, and where the last scan ends.

    Each does once: there are 64 of a channel.
    """
    place = precise = 0
    while (found := _MARKER.search(data, place)) and found[1][0] != _END:
        place = found.end()
        if found[1][0] in _ALONE:
            continue
        header = data[place + 2 : place + int.from_bytes(data[place : place + 2], "big")]
        place += len(header) + 2
        if found[1][0] == _START_OF_SCAN and len(header) > 3:  # channels, first and last coefficient, bits left out
            first, last, bits = header[-3:]
            precise += header[0] * (last - first + 1) * (bits & 15 == 0)
    end = found.start() if found else len(data)
    while end and data[end - 1] == 0xFF:
        end -= 1
    return precise, end


def _pixels(data: bytes, scale: int) -> bytes:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
        return image.tobytes()
