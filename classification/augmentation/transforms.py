"""From a decoded image to the model's input: torchvision's and timm's transforms, as the configuration asks."""

from __future__ import annotations

import math
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from classification.augmentation.erasing import erase
from classification.augmentation.sections import AugmentationConfig, RandAugmentConfig
from engine.images.preprocessing import Preprocessing
from engine.images.transforms import ImageStep, resize_steps, to_tensor
from engine.seed import generator, sample_randomness


class TrainTransform:
    """Augments: to a uint8 tensor (3, height, width) that is a function of the image and the 64-bit seed."""

    def __init__(self, preprocessing: Preprocessing, augmentation: AugmentationConfig) -> None:
        self._steps = v2.Compose(_augment(preprocessing, augmentation))
        self._erasing, self._preprocessing = augmentation.random_erasing, preprocessing

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        with sample_randomness(seed):
            tensor = to_tensor(self._steps(image))
        if self._erasing is not None:
            mean, std = self._preprocessing.mean, self._preprocessing.std
            erase(tensor, self._erasing, mean, std, generator(seed, "erasing"))
        return tensor


class _ResizedCrop(v2.RandomResizedCrop):
    """torchvision's, but of a strip of one pixel a crop has one too, whatever ratio is asked for."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        params = super().make_params(flat_inputs)
        return {**params, "height": max(1, params["height"]), "width": max(1, params["width"])}


def _augment(preprocessing: Preprocessing, augmentation: AugmentationConfig) -> list[ImageStep]:
    size, steps = preprocessing.size, resize_steps(preprocessing)
    if crop := augmentation.random_resized_crop:
        steps = [_ResizedCrop(size, crop.scale, crop.ratio, v2.InterpolationMode(preprocessing.interpolation))]
    if augmentation.shift:
        steps.append(v2.RandomCrop(size, padding=augmentation.shift))
    if augmentation.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(augmentation.horizontal_flip))
    if augmentation.vertical_flip:
        steps.append(v2.RandomVerticalFlip(augmentation.vertical_flip))
    turning = v2.InterpolationMode(_turning_filter(preprocessing))
    fill = list(preprocessing.fill)
    if augmentation.rotation:
        steps.append(v2.RandomRotation(augmentation.rotation, turning, fill=fill))
    if affine := augmentation.affine:
        steps.append(v2.RandomAffine(affine.degrees, affine.translate, affine.scale, affine.shear, turning, fill))
    if jitter := augmentation.color_jitter:
        steps.append(v2.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue))
    if sharpness := augmentation.sharpness:
        steps.append(v2.RandomAdjustSharpness(sharpness.factor, sharpness.probability))
    if blur := augmentation.blur:
        reach = min(math.ceil(3 * blur.sigma[1]), min(size) - 1)  # beyond three deviations there is next to nothing
        steps.append(v2.RandomApply([v2.GaussianBlur(2 * reach + 1, blur.sigma)], blur.probability))
    return steps + _policy(preprocessing, augmentation)


def _turning_filter(preprocessing: Preprocessing) -> str:
    """Returns the filter of geometric operations: Pillow's know no Lanczos filter."""
    return preprocessing.interpolation if preprocessing.interpolation != "lanczos" else "bicubic"


def _policy(preprocessing: Preprocessing, augmentation: AugmentationConfig) -> list[ImageStep]:
    """RandAugment, AutoAugment or TrivialAugment. What they uncover they fill as all else does."""
    from timm.data.auto_augment import auto_augment_transform, rand_augment_transform

    filter_name = _turning_filter(preprocessing)
    if augmentation.trivialaugment:
        return [v2.TrivialAugmentWide(31, v2.InterpolationMode(filter_name), list(preprocessing.fill))]
    settings = {
        "translate_const": int(0.45 * min(preprocessing.size)),
        "img_mean": preprocessing.fill,
        "interpolation": Image.Resampling[filter_name.upper()],
    }
    if (given := augmentation.randaugment) is not None:
        return [rand_augment_transform(given.text if isinstance(given, RandAugmentConfig) else given, settings)]
    if augmentation.autoaugment is not None:
        return [auto_augment_transform(augmentation.autoaugment, settings)]
    return []
