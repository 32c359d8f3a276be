"""Small image files of many formats, and what can be wrong with their bytes."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import ExifTags, Image

SAVED: list[tuple[str, str, dict[str, Any]]] = [
    *(("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")),
    ("JPEG", "RGB", {"progressive": True, "quality": 20}),
    ("JPEG", "RGB", {"orientation": 6}),
    *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *(("PNG", mode, {"orientation": 5}) for mode in ("RGB", "I;16")),
    ("PNG", "RGB", {"transparency": (1, 2, 3)}),
    ("PNG", "P", {"transparency": b"\x00\x80"}),
    *(("GIF", mode, {}) for mode in ("P", "L")),
    ("GIF", "P", {"save_all": True, "transparency": 3}),
    *(("BMP", mode, {}) for mode in ("RGB", "P", "1", "RGBA")),
    *(("TIFF", mode, {}) for mode in ("RGB", "L", "1", "CMYK", "I;16", "F", "LAB", "P", "RGBA", "YCbCr")),
    *(("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
    ("TIFF", "1", {"compression": "group4"}),
    *(("WEBP", mode, {}) for mode in ("RGB", "RGBA")),
    ("WEBP", "RGB", {"lossless": True, "orientation": 8}),
    *(("PPM", mode, {}) for mode in ("RGB", "L", "1", "I;16")),
    *(("JPEG2000", mode, {}) for mode in ("RGB", "L", "RGBA")),
    *(("AVIF", mode, {"speed": 10}) for mode in ("RGB", "RGBA")),
    *(
        (name, "RGB", {})
        for name in ("TGA", "PCX", "SGI", "ICO", "ICNS", "DDS", "IM", "EPS", "PDF", "QOI", "MPO", "XBM")
    ),
]
SIZES = ((24, 17), (1, 40), (40, 1), (1, 1), (3, 200))


@cache
def saved(number: int, size: tuple[int, int]) -> bytes:
    """The file of an entry of :data:`SAVED`; of one that cannot be saved so, that of the first."""
    kind, mode, options = SAVED[number]
    values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(values)
    if mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert("L").convert(mode) if mode in ("LA", "F") else image.convert(mode)
    options, buffer = dict(options), io.BytesIO()
    if "orientation" in options:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = options.pop("orientation")
        exif[ExifTags.Base.Make] = "camera"
        options["exif"] = exif.tobytes()
    if options.get("save_all"):
        options["append_images"] = [image]
    try:
        image.save(buffer, kind, **options)
    except (OSError, ValueError, KeyError, SystemError):  # not every format takes every size and mode
        return saved(0, size)
    return buffer.getvalue()


files = st.builds(saved, st.integers(0, len(SAVED) - 1), st.sampled_from([SIZES[0], *SIZES]))
numbers = st.sampled_from([0, 1, 2, 0xFF, 0x7FFF, 0xFFFF, 20000, 65500, 0x7FFFFFFF, 0xFFFFFFFF, 13000]) | st.integers(
    0, 2**32 - 1
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with up to four faults: cut off, bits turned, numbers written over, parts of another file."""
    data = draw(files)
    for _ in range(draw(st.integers(1, 4))):
        near = draw(st.sampled_from([16, 64, 256, len(data)]))
        place = draw(st.integers(0, max(0, min(near, len(data)) - 1)))
        match draw(st.integers(0, 7)):
            case 0:
                data = data[:place]
            case 1:
                data = data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place + 1 :]
            case 2 | 3:
                width = draw(st.sampled_from([1, 2, 4]))
                order = draw(st.sampled_from(["little", "big"]))
                data = data[:place] + (draw(numbers) % 256**width).to_bytes(width, order) + data[place + width :]
            case 4:
                other = draw(files)
                data = data[:place] + other[draw(st.integers(0, len(other))) :]
            case 5:
                data = data[:place] + data[place + draw(st.integers(1, 40)) :]
            case 6:
                data = data[:place] + data[place : place + 200] + data[place:]
            case _:
                data = with_header(
                    data, draw(numbers), draw(numbers), draw(st.integers(0, 32)), draw(st.integers(0, 7))
                )
    return data


def with_header(data: bytes, width: int, height: int, bits: int, kind: int) -> bytes:
    """The bytes with other declared sizes; PNG's with the right checksum."""
    if data.startswith(b"\x89PNG") and len(data) > 33:
        header = b"IHDR" + struct.pack(">IIBB", width, height, bits, kind) + data[26:29]
        return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    sides = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    if data.startswith(b"GIF"):
        return data[:6] + sides + data[10:]
    if data.startswith(b"BM"):
        return data[:18] + struct.pack("<II", width, height) + data[26:]
    if (frame := data.find(b"\xff\xc0")) >= 0:
        return data[: frame + 5] + sides[::-1] + data[frame + 9 :]
    return data
