"""JPEG files by libjpeg-turbo: Pillow's pixels, Pillow's words, and fewer pixels where few are used."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from engine.errors import UserError
from engine.images import lazy_image
from engine.images.image_io import read_image
from engine.images.lazy_image import LazyImage, load_image, plain_jpeg
from engine.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from engine.images.transforms import EvalTransform, Resizer, to_tensor
from tests.photograph import photograph

READY = Preprocessing(32, 40, "crop", 0.875, "bicubic", IMAGENET_MEAN, IMAGENET_STD)


def jpeg(path: Path, mode: str = "RGB", size: tuple[int, int] = (500, 375), **options: object) -> Path:
    Image.fromarray(photograph(*size)).convert(mode).save(path, "jpeg", **options)
    return path


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"subsampling": 0}),
        ("RGB", {"subsampling": 1, "quality": 40}),
        ("RGB", {"progressive": True}),
        ("RGB", {"exif": exif(1), "comment": b"x" * 300, "icc_profile": b"y" * 70_000}),
        ("RGB", {"keep_rgb": True}),
        ("L", {"restart_marker_blocks": 3}),
    ],
)
@pytest.mark.parametrize("size", [(500, 375), (333, 251), (1, 1), (17, 300)])
def test_pixels_are_pillows_without_pillow(
    mode: str, options: dict, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jpeg(tmp_path / "a.jpg", mode, size, **options)
    expected = np.asarray(read_image(path))
    monkeypatch.setattr(lazy_image, "read_image", None)
    image = load_image(path)
    assert image.size == size and image.reducible
    assert np.array_equal(image.pixels(), expected)
    for reduction in (2, 4, 8):
        assert image.pixels(reduction).shape == (-(-size[1] // reduction), -(-size[0] // reduction), 3)


@pytest.fixture
def heights(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Those of all images that the JPEG decoder has been given."""
    decode, seen = simplejpeg.decode_jpeg, list[int]()

    def noted(content: bytes, *arguments: object, **keys: object) -> object:
        seen.append(simplejpeg.decode_jpeg_header(content, strict=False)[0])
        return decode(content, *arguments, **keys)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", noted)
    return seen


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"subsampling": 0}),
        ("RGB", {"subsampling": 1, "quality": 40}),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"restart_marker_blocks": 3}),
        ("L", {}),
    ],
)
@pytest.mark.parametrize("size", [(500, 375), (333, 251), (17, 300)])
def test_below_what_is_used_nothing_is_decoded(
    mode: str, options: dict, size: tuple[int, int], tmp_path: Path, heights: list[int]
) -> None:
    image, early = load_image(jpeg(tmp_path / "a.jpg", mode, size, **options)), []
    for reduction in (1, 2, 4, 8):
        whole = image.pixels(reduction).copy()
        for rows in (1, 8, 15, 16, 17, 79, 128, 160, 161, 223, 224, size[1] - 30):
            upper, used = image.pixels(reduction, rows), -(-rows // reduction)
            assert upper.shape == whole.shape and np.array_equal(upper[:used], whole[:used]), (reduction, rows)
            early.append(rows <= heights[-1] <= rows + 3 * reduction + 15)
        image.pixels(reduction, size[1] - 2)
        assert heights[-1] == size[1]
    assert np.mean(early) > 0.9, "but where the part ends in grey"


def in_three_scans(path: Path) -> Path:
    """Writes a sequential JPEG file whose channels come one after another: that of a grey image, three times."""
    content = jpeg(path, "L").read_bytes()
    frame, scan = content.index(b"\xff\xc0"), content.index(b"\xff\xda")
    channels = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    header = b"\xff\xc0" + (17).to_bytes(2, "big") + content[frame + 4 : frame + 9] + b"\x03" + channels
    after = frame + 2 + int.from_bytes(content[frame + 2 : frame + 4], "big")
    scans = b"".join(content[scan : scan + 5] + bytes([n]) + content[scan + 6 : -2] for n in (1, 2, 3))
    path.write_bytes(content[:frame] + header + content[after:scan] + scans + content[-2:])
    return path


def test_what_cannot_end_early_is_decoded_whole(tmp_path: Path, heights: list[int]) -> None:
    progressive, sequential = jpeg(tmp_path / "a.jpg", progressive=True), jpeg(tmp_path / "c.jpg")
    for path in (progressive, in_three_scans(tmp_path / "b.jpg")):
        image = load_image(path)
        assert np.array_equal(image.pixels(1, 50), np.asarray(read_image(path))) and heights[-1] == 375
    load_image(sequential).pixels(1, 50)
    assert heights[-1] == 64
    content = sequential.read_bytes()
    for cut in (content[:-2], content[: len(content) // 2]):
        sequential.write_bytes(cut)
        with pytest.raises(UserError, match="truncated"):
            load_image(sequential).pixels(1, 50)


def test_an_upper_part_that_lacks_data_is_pillows(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3] + b"\xff\xd9")
    with pytest.raises(UserError, match="truncated"):
        load_image(path).pixels(1, 300)


@pytest.mark.parametrize("seed", range(20))
def test_damage_shows_alike_in_an_upper_part_and_in_the_whole(seed: int, tmp_path: Path) -> None:
    path, rng = jpeg(tmp_path / "a.jpg", restart_marker_blocks=7 * (seed % 2)), np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    first = content.index(b"\xff\xda") + 14
    for place in rng.integers(first, len(content) - 2, 1 + seed % 3):
        content[place] = int(rng.integers(255))
    path.write_bytes(content)
    try:
        whole = np.asarray(read_image(path))
    except UserError:
        return
    assert np.array_equal(load_image(path).pixels(1, 200)[:200], whole[:200])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_images_are_upright(orientation: int, tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", exif=exif(orientation))
    image = load_image(path)
    assert image.size == read_image(path).size and np.array_equal(image.pixels(), np.asarray(read_image(path)))


def test_what_xmp_says_of_turns_is_pillows(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg")
    content = path.read_bytes()
    said = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'
    path.write_bytes(content[:2] + b"\xff\xe1" + (len(said) + 2).to_bytes(2, "big") + said + content[2:])
    assert plain_jpeg(content) is not None and plain_jpeg(path.read_bytes()) is None
    expected = read_image(path)  # the lowest Pillow reads it of PNG files alone
    assert load_image(path).size == expected.size and np.array_equal(load_image(path).pixels(), np.asarray(expected))


def test_other_colours_are_pillows(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", "CMYK")
    assert plain_jpeg(path.read_bytes()) is None
    assert np.array_equal(load_image(path).pixels(), np.asarray(read_image(path)))


def test_other_formats_are_pillows(tmp_path: Path) -> None:
    Image.fromarray(photograph()).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert not image.reducible and np.array_equal(image.pixels(), photograph())
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").unlink()
    assert np.array_equal(load_image(tmp_path / "a.png", content).pixels(), photograph())


def test_frames_that_are_not_plain_are_left_to_pillow(tmp_path: Path) -> None:
    content = jpeg(tmp_path / "a.jpg").read_bytes()
    frame = content.index(b"\xff\xc0")
    assert plain_jpeg(content) == (500, 375, 0, frame + 5, 16, True)
    for changed in (b"\xff\xc3", b"\xff\xc9", b"\xff\xcd"):
        assert plain_jpeg(content[:frame] + changed + content[frame + 2 :]) is None
    assert plain_jpeg(content[: frame + 4] + b"\x0c" + content[frame + 5 :]) is None, "12 bits"
    huge = content[: frame + 5] + b"\xff\xff\xff\xff" + content[frame + 9 :]
    assert plain_jpeg(huge) is None
    assert all(plain_jpeg(content[:length]) is None for length in range(frame + 10))


@pytest.mark.parametrize("kept", [0, 1, 2, 30, 500, 5000])
def test_what_is_broken_is_said_as_pillow_says_it(kept: int, tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError) as expected:
        read_image(path)
    with pytest.raises(UserError) as found:
        load_image(path).pixels()
    assert str(found.value) == str(expected.value) and str(path) in str(found.value)


def test_what_pillow_makes_of_damaged_pixels_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jpeg(tmp_path / "a.jpg")
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: (_ for _ in ()).throw(ValueError("a warning")))
    for decode in ("fast", "exact"):
        found = EvalTransform(replace(READY, decode=decode))(load_image(path))
        expected = EvalTransform(replace(READY, decode=decode))(LazyImage.of(read_image(path)))
        assert torch.equal(found, expected)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_file_whose_data_end_before_its_picture_is_pillows_whatever_end_it_has(
    progressive: bool, tmp_path: Path
) -> None:
    path = jpeg(tmp_path / "a.jpg", progressive=progressive)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    for reduction in (1, 4):
        with pytest.raises(UserError, match=r"a\.jpg: cannot be read as an image \(.*truncated"):
            load_image(path).pixels(reduction)


def test_a_picture_that_ends_in_grey_is_whole(tmp_path: Path) -> None:
    pixels = photograph().copy()
    pixels[-16:, -16:] = 128
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    image = load_image(tmp_path / "a.jpg")
    assert np.array_equal(image.pixels(), np.asarray(read_image(tmp_path / "a.jpg")))
    assert Resizer("bilinear", exact=False)(image, 10, 10, (0, 0, 160, 160)).shape == (10, 10, 3)


def test_an_image_that_is_too_large_is_decoded_smaller_and_has_its_own_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jpeg(tmp_path / "a.jpg", size=(500, 375), quality=95)
    whole = [Resizer("bilinear", exact)(load_image(path), 20, 30, (100, 50, 400, 300)) for exact in (True, False)]
    monkeypatch.setattr(lazy_image, "MOST_BYTES", 500 * 375)
    monkeypatch.setattr("engine.images.image_io.MOST_BYTES", 500 * 375)
    image = load_image(path)
    assert image.size == (500, 375) and not image.reducible and image.pixels().shape[0] < 375
    for exact, expected in zip((True, False), whole, strict=True):
        found = Resizer("bilinear", exact)(image, 20, 30, (100, 50, 400, 300))
        assert np.abs(found.astype(int) - expected).mean() < 6


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.jpg: no such image"):
        load_image(tmp_path / "a.jpg")


def used(image: LazyImage, reductions: list[int]) -> LazyImage:
    """An image that notes at which sizes it is decoded."""
    return LazyImage(
        *image.size, lambda factor, rows: reductions.append(factor) or image.pixels(factor, rows), image.reducible
    )


@pytest.mark.parametrize(
    ("part", "expected"),
    [(None, 4), ((0, 0, 160, 160), 2), ((0, 0, 159, 160), 1), ((3, 5, 323, 325), 4), ((0, 0, 640, 160), 2)],
)
def test_images_are_decoded_no_smaller_than_twice_what_is_wanted(
    part: tuple[int, int, int, int] | None, expected: int, tmp_path: Path
) -> None:
    image = load_image(jpeg(tmp_path / "a.jpg", size=(640, 480), quality=95))
    seen: list[int] = []
    fast = Resizer("bicubic", exact=False)(used(image, seen), 40, 40, part)
    exact = Resizer("bicubic", exact=True)(used(image, seen), 40, 40, part)
    assert seen == [expected, 1]
    assert np.abs(fast.astype(int) - exact).mean() < (4.0 if expected > 1 else 0.1), (
        "a quarter of a pixel beside it at most"
    )


def test_exact_pixels_are_those_of_pillow(tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg")
    found = Resizer("bicubic", exact=True)(load_image(path), 32, 40, (10, 20, 310, 260))
    expected = read_image(path).crop((10, 20, 310, 260)).resize((40, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(found, np.asarray(expected))
    for name in ("nearest", "lanczos"):
        found = Resizer(name, exact=False)(LazyImage.of(read_image(path)), 32, 40)
        assert np.array_equal(found, np.asarray(read_image(path).resize((40, 32), Image.Resampling[name.upper()])))


def test_tensors_are_contiguous_whatever_the_pixels_are() -> None:
    pixels = photograph()[3:40:2, 60:5:-1]
    found = to_tensor(pixels)
    assert found.is_contiguous() and np.array_equal(found.permute(1, 2, 0).numpy(), pixels)


def test_pixels_that_may_not_be_written_are_resized() -> None:
    pixels = photograph().copy()
    pixels.flags.writeable = False
    assert Resizer("bilinear", exact=False)(LazyImage.of(pixels), 20, 30).shape == (20, 30, 3)


def test_the_content_that_was_read_ahead_is_what_is_decoded(tmp_path: Path) -> None:
    content = jpeg(tmp_path / "a.jpg").read_bytes()
    image = load_image(Path("nowhere.jpg"), content)
    assert np.array_equal(image.pixels(), np.asarray(Image.open(io.BytesIO(content))))


def test_an_image_costs_no_call_for_the_state_of_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(photograph()).save(tmp_path / "b.png")
    paths = [jpeg(tmp_path / "a.jpg"), tmp_path / "b.png"]
    monkeypatch.setattr(os, "stat", None)
    assert all(load_image(path).pixels().ndim == 3 for path in paths)
