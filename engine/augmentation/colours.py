"""Colours of pixels (H, W, 3), 8 bits, changed as Pillow's ImageEnhance and ImageOps change them.

What a table of 256 values says is the same to the bit, the rest but for rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.devices.opencv import cv2
from engine.images.image_io import ImageArray

VALUES = np.arange(256, dtype=np.float32)
SOFT = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
"""Pillow's filter SMOOTH."""


def brightness(pixels: ImageArray, factor: float) -> ImageArray:
    """Blends with black: 0 is black, 1 changes nothing."""
    return cv2.LUT(pixels, _blend_table(0, factor))


def contrast(pixels: ImageArray, factor: float) -> ImageArray:
    """Blends with the mean grey: 0 is that, 1 changes nothing."""
    grey = int(cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return cv2.LUT(pixels, _blend_table(grey, factor))


def saturation(pixels: ImageArray, factor: float) -> ImageArray:
    """Blends with the grey image: 0 is that, 1 changes nothing."""
    return blended(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), pixels, factor)


def sharpness(pixels: ImageArray, factor: float) -> ImageArray:
    """Blends with the smoothed image: 0 is that, 1 changes nothing, 2 sharpens. The outermost pixels stay."""
    soft = pixels.copy()
    if min(pixels.shape[:2]) > 2:
        soft[1:-1, 1:-1] = cv2.filter2D(pixels, -1, SOFT)[1:-1, 1:-1]
    return blended(soft, pixels, factor)


def hue(pixels: ImageArray, shift: float) -> ImageArray:
    """Turns the colour circle by ``shift``, a part of it in [-0.5, 0.5]."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def blur(pixels: ImageArray, sigma: float, reach: int) -> ImageArray:
    """Blurs by a Gaussian of ``sigma`` pixels, of which ``reach`` on either side count, as torchvision does."""
    return cv2.GaussianBlur(pixels, (2 * reach + 1, 2 * reach + 1), sigma, borderType=cv2.BORDER_REFLECT_101)


def invert(pixels: ImageArray) -> ImageArray:
    """Returns the negative."""
    return cv2.bitwise_not(pixels)


def solarize(pixels: ImageArray, threshold: float) -> ImageArray:
    """Inverts values from the threshold on."""
    return cv2.LUT(pixels, np.where(threshold > VALUES, VALUES, 255 - VALUES).astype(np.uint8))


def solarize_add(pixels: ImageArray, add: int, threshold: int = 128) -> ImageArray:
    """Adds to values below the threshold."""
    return cv2.LUT(pixels, np.where(threshold > VALUES, np.minimum(255, VALUES + add), VALUES).astype(np.uint8))


def posterize(pixels: ImageArray, bits: int) -> ImageArray:
    """Keeps the highest ``bits`` of 8."""
    return pixels if bits >= 8 else cv2.LUT(pixels, np.arange(256, dtype=np.uint8) & np.uint8(256 - 2 ** (8 - bits)))


def auto_contrast(pixels: ImageArray) -> ImageArray:
    """Spreads each channel over all values."""
    tables = []
    for channel in cv2.split(pixels):
        low, high, _, _ = cv2.minMaxLoc(channel)
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        tables.append((np.arange(256) * scale + offset).astype(np.int64).clip(0, 255))
    return _by_tables(pixels, tables)


def equalize(pixels: ImageArray) -> ImageArray:
    """Makes all values of each channel about equally frequent."""
    tables = []
    for channel in cv2.split(pixels):
        counts = np.bincount(channel.reshape(-1), minlength=256)
        there = counts[counts > 0]
        step = int(there.sum() - there[-1]) // 255
        before = np.concatenate([[0], np.cumsum(counts)[:-1]])
        tables.append((step // 2 + before) // step if step else np.arange(256))
    return _by_tables(pixels, tables)


def _by_tables(pixels: ImageArray, tables: list[NDArray[np.int64]]) -> ImageArray:
    return cv2.LUT(pixels, np.stack(tables, 1).clip(0, 255).astype(np.uint8)[None])


def _blend_table(other: int, factor: float) -> NDArray[np.uint8]:
    """What becomes of each value if it is blended with one other: Pillow's arithmetic."""
    return (other + np.float32(factor) * (VALUES - other)).clip(0, 255).astype(np.uint8)


def blended(other: ImageArray, pixels: ImageArray, factor: float) -> ImageArray:
    """Blends: a ``factor`` of 0 gives the other, 1 the pixels.

    Pillow cuts off fractions, for which half of the last bit, or nearly, is taken off before rounding.
    """
    return cv2.addWeighted(pixels, factor, other, 1 - factor, -0.499)
