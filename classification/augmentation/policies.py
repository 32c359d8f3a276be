"""RandAugment, AutoAugment, AugMix and TrivialAugment on arrays.

What is drawn is drawn by timm's own objects, or as torchvision draws it; what is done to pixels is done by kernels for
arrays, see :mod:`engine.augmentation`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.data import auto_augment as timm_policies

from classification.augmentation.sections import AugmentationConfig, RandAugmentConfig
from engine.augmentation import colours, warps
from engine.augmentation.draws import below
from engine.devices.opencv import cv2
from engine.images.image_io import ImageArray
from engine.images.preprocessing import Preprocessing

ArrayStep = Callable[[ImageArray], ImageArray]
BINS = 31
"""Strengths of an operation of TrivialAugment."""


def policy_steps(preprocessing: Preprocessing, augmentation: AugmentationConfig) -> list[ArrayStep]:
    """Builds the policy that is asked for, if one is. What it uncovers it fills as all else does."""
    filter_name, fill = turning_filter(preprocessing), preprocessing.fill
    if augmentation.trivialaugment:
        return [_TrivialAugment(filter_name, fill)]
    settings = {"translate_const": int(0.45 * min(preprocessing.size)), "img_mean": fill, "interpolation": filter_name}
    if (given := augmentation.randaugment) is not None:
        text = given.text if isinstance(given, RandAugmentConfig) else given
        policy = timm_policies.rand_augment_transform(text, settings)
        _use_arrays(policy.ops)
        return [policy]
    if augmentation.autoaugment is not None:
        policy = timm_policies.auto_augment_transform(augmentation.autoaugment, settings)
        for operations in policy.policy:
            _use_arrays(operations)
        return [policy]
    if augmentation.augmix is not None:
        mix = timm_policies.augment_and_mix_transform(augmentation.augmix, settings)
        _use_arrays(mix.ops)
        return [_AugMix(mix)]
    return []


def turning_filter(preprocessing: Preprocessing) -> str:
    """Returns the filter of geometric operations, which know no Lanczos filter."""
    return preprocessing.interpolation if preprocessing.interpolation != "lanczos" else "bicubic"


def _use_arrays(operations: list[Any]) -> None:
    """Gives timm's operations our kernels. Names of those that timm may add have none: a KeyError says so."""
    for operation in operations:
        operation.aug_fn = KERNELS[operation.name]


def _shear(pixels: ImageArray, factor: float, fillcolor: warps.Colour, resample: str, down: bool) -> ImageArray:
    return warps.warp(pixels, (1, 0, 0, factor, 1, 0) if down else (1, factor, 0, 0, 1, 0), resample, fillcolor)


def _translate(pixels: ImageArray, by: float, fillcolor: warps.Colour, resample: str, down: bool) -> ImageArray:
    return warps.warp(pixels, (1, 0, 0, 0, 1, by) if down else (1, 0, by, 0, 1, 0), resample, fillcolor)


def _translate_part(pixels: ImageArray, part: float, fillcolor: warps.Colour, resample: str, down: bool) -> ImageArray:
    return _translate(pixels, part * pixels.shape[0 if down else 1], fillcolor, resample, down)


def _rotate(pixels: ImageArray, degrees: float, fillcolor: warps.Colour, resample: str) -> ImageArray:
    return warps.rotate(pixels, degrees, resample, fillcolor)


def _blur(pixels: ImageArray, sigma: float) -> ImageArray:
    return cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) if sigma > 0 else pixels


def _blur_at_random(pixels: ImageArray, factor: float) -> ImageArray:
    return _blur(pixels, random.uniform(0.1, 2.0 * factor))


def _desaturate(pixels: ImageArray, part: float) -> ImageArray:
    return colours.saturation(pixels, min(1.0, max(0.0, 1.0 - part)))


def _on_colours(
    kernel: Callable[..., ImageArray], pixels: ImageArray, *strength: Any, fillcolor: Any = None, resample: Any = None
) -> ImageArray:
    """Calls a kernel of colours, which is handed what geometric ones need as well."""
    return kernel(pixels, *strength)


_COLOURS: dict[str, Callable[..., ImageArray]] = {
    "AutoContrast": colours.auto_contrast,
    "Equalize": colours.equalize,
    "Invert": colours.invert,
    "Posterize": colours.posterize,
    "PosterizeIncreasing": colours.posterize,
    "PosterizeOriginal": colours.posterize,
    "Solarize": colours.solarize,
    "SolarizeIncreasing": colours.solarize,
    "SolarizeAdd": colours.solarize_add,
    "Color": colours.saturation,
    "ColorIncreasing": colours.saturation,
    "Contrast": colours.contrast,
    "ContrastIncreasing": colours.contrast,
    "Brightness": colours.brightness,
    "BrightnessIncreasing": colours.brightness,
    "Sharpness": colours.sharpness,
    "SharpnessIncreasing": colours.sharpness,
    "Desaturate": _desaturate,
    "GaussianBlur": _blur,
    "GaussianBlurRand": _blur_at_random,
}
KERNELS: dict[str, Callable[..., ImageArray]] = {
    **{name: partial(_on_colours, kernel) for name, kernel in _COLOURS.items()},
    "Rotate": _rotate,
    "ShearX": partial(_shear, down=False),
    "ShearY": partial(_shear, down=True),
    "TranslateX": partial(_translate, down=False),
    "TranslateY": partial(_translate, down=True),
    "TranslateXRel": partial(_translate_part, down=False),
    "TranslateYRel": partial(_translate_part, down=True),
}
"""By timm's names."""


@dataclass(frozen=True)
class _AugMix:
    """AugMix (arXiv:1912.02781) as timm's, which mixes Pillow's images."""

    given: Any
    """timm's object, with kernels for arrays."""

    def __call__(self, pixels: ImageArray) -> ImageArray:
        given = self.given
        weights = np.random.dirichlet([given.alpha] * given.width).astype(np.float32)
        part = np.float32(np.random.beta(given.alpha, given.alpha))
        if given.blended:
            blended = pixels
            for weight in given._calc_blended_weights(weights, part).tolist():
                blended = colours.blended(blended, self._chain(pixels), weight)
            return blended
        total = np.zeros(pixels.shape, np.float32)
        for weight in weights:
            total += weight * self._chain(pixels)
        mixed = total.clip(0, 255).astype(np.uint8)
        return colours.blended(pixels, mixed, float(part))

    def _chain(self, pixels: ImageArray) -> ImageArray:
        depth = self.given.depth if self.given.depth > 0 else np.random.randint(1, 4)
        for operation in np.random.choice(self.given.ops, depth, replace=True):
            pixels = operation(pixels)
        return pixels


def _strengths(most: float) -> list[float]:
    return torch.linspace(0.0, most, BINS).tolist()


TRIVIAL: tuple[tuple[str, list[float], float, bool], ...] = (
    ("Identity", [], 0.0, False),
    ("ShearX", _strengths(0.99), 0.0, True),
    ("ShearY", _strengths(0.99), 0.0, True),
    ("TranslateX", _strengths(32.0), 0.0, True),
    ("TranslateY", _strengths(32.0), 0.0, True),
    ("Rotate", _strengths(135.0), 0.0, True),
    ("Brightness", _strengths(0.99), 1.0, True),
    ("Color", _strengths(0.99), 1.0, True),
    ("Contrast", _strengths(0.99), 1.0, True),
    ("Sharpness", _strengths(0.99), 1.0, True),
    ("Posterize", (8 - torch.arange(BINS) / ((BINS - 1) / 6)).round().tolist(), 0.0, False),
    ("Solarize", (255.0 * torch.linspace(1.0, 0.0, BINS)).tolist(), 0.0, False),
    ("AutoContrast", [], 0.0, False),
    ("Equalize", [], 0.0, False),
)
"""Operations of TrivialAugment, wide: name, strengths, what is added to these, and whether they go both ways."""


@dataclass(frozen=True)
class _TrivialAugment:
    """TrivialAugment as torchvision's ``TrivialAugmentWide``: one operation, of any strength."""

    resample: str
    fill: warps.Colour

    def __call__(self, pixels: ImageArray) -> ImageArray:
        name, strengths, added, signed = TRIVIAL[below(len(TRIVIAL))]
        strength = strengths[below(BINS)] if strengths else 0.0
        if signed and torch.rand(()) <= 0.5:
            strength = -strength
        if name.startswith("Translate"):  # torchvision moves the image, timm what is looked at
            strength = -int(strength)
        if name == "Posterize":
            strength = int(strength)
        given = [added + strength] if strengths else []
        return (
            pixels if name == "Identity" else KERNELS[name](pixels, *given, fillcolor=self.fill, resample=self.resample)
        )
