"""JPEG files that end too soon and have an end marker all the same; right ones, however grey, are none of these."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import UserError
from engine.images.image_io import read_image

END = b"\xff\xd9"
WAYS: list[tuple[str, dict[str, Any]]] = [
    *((mode, {}) for mode in ("RGB", "L", "CMYK")),
    *((mode, {"progressive": True}) for mode in ("RGB", "L")),
    ("RGB", {"restart_marker_blocks": 3}),
    ("RGB", {"subsampling": 0, "optimize": True}),
]


def saved(pixels: np.ndarray, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture
def photograph() -> np.ndarray:
    """Smooth and noisy, (96, 120, 3)."""
    rng = np.random.default_rng(0)
    return (np.linspace(0, 200, 120)[:, None] + rng.normal(20, 12, (96, 120, 3))).clip(0, 255).astype(np.uint8)


def read(folder: Path, data: bytes) -> Image.Image:
    (folder / "a.jpg").write_bytes(data)
    return read_image(folder / "a.jpg")


@pytest.mark.parametrize(("mode", "options"), WAYS)
def test_cut_off_before_an_end_marker_is_truncated(tmp_path: Path, photograph: np.ndarray, mode: str, options: Any):
    data = saved(photograph, mode, **options)
    filled = data[:-2] + b"\xff\xff" + END  # as much of 0xFF as one likes may stand before a marker
    assert read(tmp_path, data).size == read(tmp_path, filled).size == (120, 96)
    begin = data.index(b"\xff\xda") + 20
    for share in (0.02, 0.1, 0.3) if "progressive" in options else (0.02, 0.3, 0.6, 0.9):
        with pytest.raises(UserError, match=r"a\.jpg: cannot be read as an image \(image file is truncated"):
            read(tmp_path, data[: begin + int(share * (len(data) - begin))] + END)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("place", [5, 7])
def test_a_header_of_a_larger_picture_is_truncated(
    tmp_path: Path, photograph: np.ndarray, place: int, progressive: bool
) -> None:
    data = saved(photograph, progressive=progressive)
    side = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + place
    larger = (int.from_bytes(data[side : side + 2], "big") + 40).to_bytes(2, "big")
    with pytest.raises(UserError, match="image file is truncated"):
        read(tmp_path, data[:side] + larger + data[side + 2 :])


@pytest.mark.parametrize(("mode", "options"), WAYS)
@pytest.mark.parametrize("size", [(1, 1), (8, 40), (33, 17), (64, 64)])
def test_right_pictures_are_read_however_grey_they_are(
    tmp_path: Path, size: tuple[int, int], mode: str, options: Any
) -> None:
    rng = np.random.default_rng(1)
    for corner in (0, 16, 64):
        pixels = np.full((*size, 3), 128, np.uint8)
        pixels[: max(0, size[0] - corner)] = rng.integers(0, 256, 3)
        data = saved(pixels, mode, **options)
        for tail in (b"", b"\0" * 100, data):  # what follows, such as another picture, is none of its own
            assert read(tmp_path, data + tail).size == size[::-1]


def test_a_picture_of_few_passes_is_whole(tmp_path: Path, photograph: np.ndarray) -> None:
    data = saved(photograph, progressive=True)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    tables = data.rindex(b"\xff\xc4", 0, second)  # of the second pass
    assert read(tmp_path, data[:tables] + END).size == (120, 96)
