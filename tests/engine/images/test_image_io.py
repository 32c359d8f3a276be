from __future__ import annotations

import os
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from engine.errors import UserError
from engine.images import image_io
from engine.images.image_io import read_image, size_in_file, to_rgb, write_image

COLOURS = (
    np.array([[[250, 0, 0], [0, 250, 0], [0, 0, 250]], [[250, 250, 0], [0, 250, 250], [40, 80, 160]]], np.uint8)
    .repeat(16, 0)
    .repeat(16, 1)
)
"""Six blocks of colour, (32, 48, 3)."""


def pixels(path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp", "ppm"])
def test_formats_without_loss_come_back_exactly(tmp_path, ending):
    path = tmp_path / f"image.{ending}"
    Image.fromarray(COLOURS).save(path, **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(pixels(path), COLOURS)


def test_a_jpeg_is_decoded_at_full_size(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    found = pixels(tmp_path / "a.jpg")
    assert found.shape == COLOURS.shape
    assert np.abs(found.astype(int) - COLOURS).mean() < 3


INVERSE = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}
"""How a camera stores an upright image under each orientation, by the EXIF standard's table."""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(INVERSE[orientation](COLOURS))
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "a.png"), COLOURS)


def test_broken_exif_data_do_not_matter(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", exif=b"Exif\0\0this is not EXIF")
    assert pixels(tmp_path / "a.jpg").shape == COLOURS.shape


@pytest.mark.parametrize("mode", ["L", "1"])
def test_greyscale_becomes_three_equal_channels(tmp_path, mode):
    grey = Image.fromarray(COLOURS).convert(mode)
    grey.save(tmp_path / "a.png")
    expected = np.asarray(grey.convert("L"))
    assert np.array_equal(pixels(tmp_path / "a.png"), np.stack([expected] * 3, 2))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, ending):
    values = np.array([[0, 257, 32896, 65535], [128, 129, 40000, 300]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    expected = np.round(values.astype(float) * 255 / 65535).astype(np.uint8)
    assert np.array_equal(pixels(tmp_path / f"a.{ending}")[..., 1], expected)


def test_cmyk_is_converted(tmp_path):
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "a.tif")
    assert np.abs(pixels(tmp_path / "a.tif").astype(int) - COLOURS).max() <= 1
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(pixels(tmp_path / "a.jpg").astype(int) - COLOURS).mean() < 5


def test_a_palette_is_looked_up(tmp_path):
    Image.fromarray(COLOURS).quantize(8).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), COLOURS)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_white(tmp_path, mode):
    image = Image.fromarray(COLOURS).convert(mode)
    alpha = np.zeros(COLOURS.shape[:2], np.uint8)
    alpha[:, 24:] = 255
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "a.png")
    found = pixels(tmp_path / "a.png")
    assert (found[:, :24] == 255).all()
    assert np.array_equal(found[:, 24:], np.asarray(Image.fromarray(COLOURS).convert(mode[:-1]).convert("RGB"))[:, 24:])


def test_a_transparent_palette_entry_and_colour_are_white(tmp_path):
    Image.fromarray(COLOURS).quantize(8).save(tmp_path / "a.gif", transparency=0)
    assert (pixels(tmp_path / "a.gif") == 255).all(2).sum() == 16 * 16
    Image.fromarray(COLOURS).save(tmp_path / "a.png", transparency=(250, 0, 0))
    found = pixels(tmp_path / "a.png")
    assert (found[:16, :16] == 255).all()
    assert np.array_equal(found[16:], COLOURS[16:])


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (pixels(tmp_path / "a.gif") == 0).all()


@pytest.fixture
def jpeg(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    return tmp_path / "a.jpg"


def damaged(path, how: str) -> None:
    data = path.read_bytes()
    path.write_bytes(
        {"truncated": data[: len(data) // 2], "empty": b"", "text": b"not an image", "head": data[:30]}[how]
    )


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "head"])
def test_a_broken_image_is_a_user_error_with_its_path(jpeg, how):
    damaged(jpeg, how)
    with pytest.raises(UserError) as caught:
        read_image(jpeg)
    assert str(caught.value).startswith(f"{jpeg}: cannot be read as an image (")
    assert ("it is empty" in str(caught.value)) == (how == "empty")


def test_a_broken_png_is_a_user_error_with_its_path(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.png: cannot be read as an image"):
        read_image(path)


def test_a_missing_image_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"b\.jpg: no such image"):
        read_image(tmp_path / "b.jpg")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: .*floating-point"):
        read_image(tmp_path / "a.tif")


def test_a_decompression_bomb_is_refused_before_it_unpacks(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(UserError, match=r"bomb\.png: .*(bomb|exceeds limit)"):
        read_image(tmp_path / "bomb.png")


def test_a_side_that_no_picture_has_is_refused(tmp_path):
    Image.new("1", (1, 1_000_001)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: .*it has 1 x 1000001 pixels, which no picture has"):
        read_image(tmp_path / "a.png")


def test_a_picture_that_is_a_program_is_not_run(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", "EPS")
    with pytest.raises(UserError, match=r"a\.jpg: .*a file of the format EPS; convert it to PNG"):
        read_image(tmp_path / "a.jpg")


def test_a_written_image_reads_back_exactly_and_leaves_nothing_else(tmp_path):
    write_image(tmp_path / "results" / "sheet.png", COLOURS)
    write_image(tmp_path / "results" / "sheet.png", COLOURS[::-1])
    assert np.array_equal(pixels(tmp_path / "results" / "sheet.png"), COLOURS[::-1])
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["sheet.png"]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "I;16", "L", "CMYK", "1"])
def test_a_large_image_is_converted_part_by_part_to_the_same(mode, monkeypatch):
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (37, 20), np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (37, 20, 4), np.uint8)).convert("P" if mode == "PA" else mode)
        image = image.convert(mode)
    if mode == "P":
        image.info["transparency"] = 3
    whole = np.asarray(to_rgb(image))
    monkeypatch.setattr("engine.images.image_io.AT_ONCE", 100)
    assert to_rgb(image).mode == "RGB" and np.array_equal(np.asarray(to_rgb(image)), whole)


def test_what_is_no_file_is_called_so_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # whose path may be too long for a socket
        server.bind("socket.jpg")
        os.chdir(here)
        for name, kind in [("pipe", "named pipe"), ("folder", "folder"), ("device", "device"), ("socket", "socket")]:
            with pytest.raises(
                UserError, match=rf"{name}\.jpg: cannot be read as an image \(it is a {kind}, no file\)"
            ):
                read_image(tmp_path / f"{name}.jpg")


@pytest.mark.parametrize(("name", "orientation"), [("a.jpg", 1), ("a.jpg", 6), ("a.jp2", 1)])
def test_an_image_of_too_many_pixels_is_decoded_smaller(tmp_path, monkeypatch, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS.repeat(8, 0).repeat(8, 1)).save(tmp_path / name, exif=exif)
    whole = read_image(tmp_path / name)
    assert size_in_file(whole) == whole.size
    monkeypatch.setattr(image_io, "MOST_BYTES", 4 * whole.width * whole.height - 1)
    small = read_image(tmp_path / name)
    part = whole.width // small.width
    assert part in (2, 4, 8) and small.size == (whole.width // part, whole.height // part)
    assert size_in_file(small) == whole.size
    there = np.asarray(whole.resize(small.size), int)
    assert np.abs(np.asarray(small) - there).mean() < 8


def test_one_that_cannot_be_is_refused_with_its_size(tmp_path, monkeypatch):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    monkeypatch.setattr(image_io, "MOST_BYTES", 4 * 48 * 32 - 1)
    with pytest.raises(UserError, match=r"a\.png: .*it has 48 x 32 pixels, more than can be read of a RGB PNG"):
        read_image(tmp_path / "a.png")
