"""Strips, of which a resize as of any image would make gigabytes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from engine.images.lazy_image import LazyImage
from engine.images.preprocessing import Preprocessing
from engine.images.transforms import EvalTransform

SIDE = 32
MOST = 64 * SIDE**2
"""Pixels that an intermediate may have beyond those of the image itself."""


def preprocessing(resize: str, interpolation: str = "bicubic", crop_pct: float = 0.875) -> Preprocessing:
    return Preprocessing(SIDE, SIDE, resize, crop_pct, interpolation, (0.5,) * 3, (0.5,) * 3)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pixels of each image that Pillow makes when it resizes one: first of all rows at the new width, then the rest."""
    found: list[int] = []
    resize = Image.Image.resize

    def spy(self: Image.Image, size: tuple[int, int], *arguments: object, **keys: object) -> Image.Image:
        found.append(size[0] * max(size[1], self.height))
        return resize(self, size, *arguments, **keys)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", spy)
    return found


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1), (2, 100_000), (30, 100_000), (100_000, 30)])
def test_nothing_that_is_made_of_a_strip_is_huge(resize: str, size: tuple[int, int], made: list[int]) -> None:
    found = EvalTransform(preprocessing(resize))(LazyImage.of(Image.new("RGB", size, "white")))
    assert found.shape == (3, SIDE, SIDE)
    assert made and max(made) <= MOST + size[0] * size[1]
    if resize != "pad":
        assert int(found.min()) == 255, "nothing is padded"


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.3])
@pytest.mark.parametrize("size", [(1, 901), (903, 1), (2, 700), (1999, 61), (90, 4001)])  # the fourth is no strip
def test_the_middle_of_a_strip_is_that_of_the_whole(size: tuple[int, int], crop_pct: float, interpolation: str) -> None:
    mode = v2.InterpolationMode(interpolation)
    whole = v2.Compose([v2.Resize(int(SIDE / crop_pct), mode), v2.CenterCrop(SIDE), v2.PILToTensor()])
    found = EvalTransform(preprocessing("crop", interpolation, crop_pct))(LazyImage.of(noise(*size)))
    off = (found.int() - whole(noise(*size)).int()).abs()
    assert (off > 0).float().mean() < 0.005 and (off.max() <= 1 or interpolation == "nearest")


def test_a_squashed_strip_shows_all_of_it() -> None:
    strip = np.zeros((100_000, 1, 3), np.uint8)
    strip[:50_000, :, 0] = 200
    found = EvalTransform(preprocessing("squash"))(LazyImage.of(strip))
    assert found[0, 3].unique().tolist() == [200] and found[0, -3].unique().tolist() == [0]
