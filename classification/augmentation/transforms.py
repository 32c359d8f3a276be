"""From an image to the model's input, changed at random as the configuration asks: arrays of bytes all the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from classification.augmentation.erasing import erase
from classification.augmentation.policies import ArrayStep, policy_steps, turning_filter
from classification.augmentation.sections import (
    AffineConfig,
    AugmentationConfig,
    BlurConfig,
    ColorJitterConfig,
    RandomResizedCropConfig,
    SharpnessConfig,
)
from engine.augmentation import colours, warps
from engine.augmentation.draws import below, draw_crop, happens, uniform
from engine.devices.opencv import cv2
from engine.images.image_io import ImageArray
from engine.images.lazy_image import LazyImage
from engine.images.preprocessing import Preprocessing
from engine.images.transforms import Box, flipped, resize_step, resizer_of, to_tensor
from engine.seed import generator, sample_randomness, torch_randomness


class TrainTransform:
    """Augments: to a uint8 tensor (3, height, width) that is a function of the image and the 64-bit seed."""

    def __init__(self, preprocessing: Preprocessing, augmentation: AugmentationConfig) -> None:
        self._steps, policies = _steps(preprocessing, augmentation), policy_steps(preprocessing, augmentation)
        self._steps += policies
        self._randomness = sample_randomness if policies else torch_randomness
        self._resize: Callable[[LazyImage], ImageArray] = resize_step(preprocessing)
        if crop := augmentation.random_resized_crop:
            resizer, only_flips = resizer_of(preprocessing), all(isinstance(step, _Flip) for step in self._steps)
            self._resize = _ResizedCrop(*preprocessing.size, crop, resizer.unpacked if only_flips else resizer)
        self._erasing, self._preprocessing = augmentation.random_erasing, preprocessing

    def __call__(self, image: LazyImage, seed: int) -> Tensor:
        with self._randomness(seed):
            pixels = self._resize(image)
            for step in self._steps:
                pixels = step(pixels)
        tensor = to_tensor(pixels)
        if self._erasing is not None:
            mean, std = self._preprocessing.mean, self._preprocessing.std
            erase(tensor, self._erasing, mean, std, generator(seed, "erasing"))
        return tensor


def _steps(preprocessing: Preprocessing, augmentation: AugmentationConfig) -> list[ArrayStep]:
    """Returns what follows on the crop, but policies. Each draws as the transform of torchvision of that name does."""
    steps: list[ArrayStep] = []
    if augmentation.shift:
        steps.append(_Shift(augmentation.shift))
    if augmentation.horizontal_flip:
        steps.append(_Flip(augmentation.horizontal_flip, down=False))
    if augmentation.vertical_flip:
        steps.append(_Flip(augmentation.vertical_flip, down=True))
    turning = (turning_filter(preprocessing), preprocessing.fill)
    if augmentation.rotation:
        steps.append(_Rotation(augmentation.rotation, *turning))
    if augmentation.affine:
        steps.append(_Affine(augmentation.affine, *turning))
    if augmentation.color_jitter:
        steps.append(_ColorJitter(augmentation.color_jitter))
    if augmentation.sharpness:
        steps.append(_Sharpness(augmentation.sharpness))
    if augmentation.blur:
        steps.append(_Blur(augmentation.blur))
    return steps


@dataclass(frozen=True)
class _ResizedCrop:
    height: int
    width: int
    given: RandomResizedCropConfig
    resize: Callable[[LazyImage, int, int, Box], ImageArray]

    def __call__(self, image: LazyImage) -> ImageArray:
        part = draw_crop(*image.size, self.given.scale, self.given.ratio)
        return self.resize(image, self.height, self.width, part)


@dataclass(frozen=True)
class _Shift:
    most: int

    def __call__(self, pixels: ImageArray) -> ImageArray:
        height, width = pixels.shape[:2]
        padded = cv2.copyMakeBorder(pixels, *[self.most] * 4, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        top, left = below(2 * self.most + 1), below(2 * self.most + 1)
        return np.ascontiguousarray(padded[top : top + height, left : left + width])


@dataclass(frozen=True)
class _Flip:
    probability: float
    down: bool
    """Up and down, else left and right."""

    def __call__(self, pixels: ImageArray) -> ImageArray:
        return flipped(pixels, self.down) if happens(self.probability) else pixels


@dataclass(frozen=True)
class _Rotation:
    most: float
    filter_name: str
    fill: warps.Colour

    def __call__(self, pixels: ImageArray) -> ImageArray:
        return warps.rotate(pixels, uniform(-self.most, self.most), self.filter_name, self.fill)


@dataclass(frozen=True)
class _Affine:
    given: AffineConfig
    filter_name: str
    fill: warps.Colour

    def __call__(self, pixels: ImageArray) -> ImageArray:
        given, (height, width) = self.given, pixels.shape[:2]
        degrees = uniform(-given.degrees, given.degrees)
        across, down = (given.translate[0] * width, given.translate[1] * height)
        moved = round(uniform(-across, across)), round(uniform(-down, down))
        scale, shear = uniform(*given.scale), uniform(-given.shear, given.shear)
        matrix = warps.inverse_affine(pixels, degrees, moved, scale, (shear, 0.0))
        return warps.warp(pixels, matrix, self.filter_name, self.fill)


@dataclass(frozen=True)
class _ColorJitter:
    given: ColorJitterConfig

    def __call__(self, pixels: ImageArray) -> ImageArray:
        given, order = self.given, torch.randperm(4).tolist()
        factors = [
            uniform(max(0.0, 1 - most), 1 + most) if most else None
            for most in (given.brightness, given.contrast, given.saturation)
        ]
        factors.append(uniform(-given.hue, given.hue) if given.hue else None)
        kernels = (colours.brightness, colours.contrast, colours.saturation, colours.hue)
        for place in order:
            if (factor := factors[place]) is not None:
                pixels = kernels[place](pixels, factor)
        return pixels


@dataclass(frozen=True)
class _Sharpness:
    given: SharpnessConfig

    def __call__(self, pixels: ImageArray) -> ImageArray:
        return colours.sharpness(pixels, self.given.factor) if happens(self.given.probability) else pixels


@dataclass(frozen=True)
class _Blur:
    given: BlurConfig

    def __call__(self, pixels: ImageArray) -> ImageArray:
        if not happens(self.given.probability):
            return pixels
        most = math.ceil(3 * self.given.sigma[1])  # beyond three deviations there is next to nothing
        return colours.blur(pixels, uniform(*self.given.sigma), min(most, min(pixels.shape[:2]) - 1))
