"""Kernels for arrays beside Pillow's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms.v2 import functional as F

from engine.augmentation import colours
from engine.images.image_io import ImageArray
from tests.photograph import photograph

ONE = np.full((5, 4, 3), 77, np.uint8)


def off(
    ours: Callable[[ImageArray], ImageArray], theirs: Callable[[Image.Image], Image.Image], of: ImageArray
) -> float:
    """How much both differ in the mean, in values of 0 to 255."""
    before = of.copy()
    found = ours(of)
    assert np.array_equal(of, before), "the image itself stays"
    return float(np.abs(found.astype(int) - np.asarray(theirs(Image.fromarray(of)))).mean())


@pytest.mark.parametrize("pixels", [photograph(), ONE], ids=["photograph", "one colour"])
@pytest.mark.parametrize("factor", [0.0, 0.1, 0.7, 1.0, 1.9])
@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color", "Sharpness"])
def test_blends(name: str, factor: float, pixels: ImageArray) -> None:
    ours = getattr(colours, {"Color": "saturation"}.get(name, name.lower()))
    enhance = getattr(ImageEnhance, name)
    found = off(lambda given: ours(given, factor), lambda image: enhance(image).enhance(factor), pixels)
    assert found == 0 if name in ("Brightness", "Contrast") else found < 0.1


@pytest.mark.parametrize("pixels", [photograph(), ONE, photograph()[:3, :3]], ids=["photograph", "one colour", "tiny"])
def test_tables_are_the_same_to_the_bit(pixels: ImageArray) -> None:
    assert off(colours.auto_contrast, ImageOps.autocontrast, pixels) == 0
    assert off(colours.equalize, ImageOps.equalize, pixels) == 0
    assert off(colours.invert, ImageOps.invert, pixels) == 0
    for at in (0, 30, 127.5, 256):
        assert off(partial(colours.solarize, threshold=at), partial(ImageOps.solarize, threshold=at), pixels) == 0
    for bits in range(1, 9):
        assert off(partial(colours.posterize, bits=bits), partial(ImageOps.posterize, bits=bits), pixels) == 0
    assert np.array_equal(colours.posterize(pixels, 0), 0 * pixels)
    added = colours.solarize_add(pixels, 60)
    assert np.array_equal(added, np.where(pixels < 128, np.minimum(pixels.astype(int) + 60, 255), pixels))


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.05, 0.5])
def test_hue(shift: float) -> None:
    assert off(lambda a: colours.hue(a, shift), lambda image: F.adjust_hue(image, shift), photograph()) < 0.7


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_blur(sigma: float) -> None:
    sides = {"kernel_size": [13, 13], "sigma": [sigma, sigma]}
    assert off(lambda a: colours.blur(a, sigma, 6), lambda image: F.gaussian_blur(image, **sides), photograph()) < 0.1
