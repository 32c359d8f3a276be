"""Turned and moved images beside Pillow's and torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from engine.augmentation.warps import inverse_affine, rotate, warp
from engine.images.image_io import ImageArray
from tests.photograph import photograph

FILL = (200, 30, 90)
MOST = {"nearest": 1.3, "bilinear": 0.8, "bicubic": 1.2}
"""Mean difference of values in 0 to 255 on a photograph with much detail: Pillow cuts fractions off.
OpenCV 4 places pixels to a 32nd, OpenCV 5 exactly."""


def off(found: ImageArray, expected: Image.Image) -> float:
    return float(np.abs(found.astype(int) - np.asarray(expected)).mean())


@pytest.mark.parametrize("interpolation", MOST)
def test_places_are_pillows(interpolation: str) -> None:
    image, resample = Image.fromarray(photograph()), Image.Resampling[interpolation.upper()]
    for matrix in ((1, 0.3, 0, 0, 1, 0), (1, 0, 0, -0.2, 1, 0), (1, 0, 17.6, 0, 1, 0), (0.8, 0.1, 3, -0.2, 1.1, 9)):
        expected = image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=FILL)
        assert off(warp(photograph(), matrix, interpolation, FILL), expected) < MOST[interpolation]
    for degrees in (-30, 7.5, 135):
        expected = image.rotate(degrees, resample, fillcolor=FILL)
        assert off(rotate(photograph(), degrees, interpolation, FILL), expected) < MOST[interpolation]


@pytest.mark.parametrize("centre", [None, (0, 0)])
def test_affine_maps_are_torchvisions(centre: tuple[int, int] | None) -> None:
    matrix = inverse_affine(photograph(), 12.0, (5, -9), 1.1, (4.0, -3.0), centre)
    given = (12.0, [5, -9], 1.1, [4.0, -3.0], InterpolationMode.BILINEAR, list(FILL), centre and [0.0, 0.0])
    expected = F.affine(Image.fromarray(photograph()), *given)
    assert off(warp(photograph(), matrix, "bilinear", FILL), expected) < MOST["bilinear"]
