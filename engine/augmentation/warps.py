"""Pixels (H, W, 3) turned, moved and sheared as Pillow and torchvision do it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine.devices.opencv import cv2
from engine.images.image_io import ImageArray

FILTERS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
Colour = tuple[int, int, int]


def warp(pixels: ImageArray, matrix: Sequence[float], interpolation: str, fill: Colour) -> ImageArray:
    """Maps pixels as Pillow's ``transform`` with AFFINE: of the result's place (x, y) to (ax + by + c, dx + ey + f).

    Args:
        matrix: a, b, c, d, e, f; places are those of pixels' corners.
        interpolation: nearest, bilinear or bicubic.
        fill: The colour of what comes from outside.
    """
    a, b, c, d, e, f = matrix
    centres = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
    flags = FILTERS[interpolation] | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, centres, pixels.shape[1::-1], flags=flags, borderValue=fill)


def rotate(pixels: ImageArray, degrees: float, interpolation: str, fill: Colour) -> ImageArray:
    """Turns about the middle, against the clock."""
    return warp(pixels, inverse_affine(pixels, -degrees), interpolation, fill)


def inverse_affine(
    pixels: ImageArray,
    degrees: float,
    translate: tuple[int, int] = (0, 0),
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
    centre: tuple[float, float] | None = None,
) -> list[float]:
    """Returns the matrix for :func:`warp` of torchvision's ``affine``.

    Args:
        pixels: Whose middle is the centre, if there is no other.
        degrees: Rotation, with the clock.
        translate: Pixels across and down.
        scale: Magnification.
        shear: Degrees, along x and y.
        centre: What stays where it is.
    """
    x, y = centre or (pixels.shape[1] / 2, pixels.shape[0] / 2)
    turn, along_x, along_y = math.radians(degrees), math.radians(shear[0]), math.radians(shear[1])
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    sheared = np.array([[1, 0], [-math.tan(along_y), 1]]) @ np.array([[1, -math.tan(along_x)], [0, 1]])
    inverse = np.linalg.inv(scale * rotation @ sheared)
    offset = np.array([x, y]) - inverse @ np.array([x + translate[0], y + translate[1]])
    return [*inverse[0], offset[0], *inverse[1], offset[1]]
