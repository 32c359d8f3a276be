"""One image on its way to the network, with the noise that it is given, drawn where it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from diffusion.data.sections import AugmentationConfig, DiffusionDataConfig
from diffusion.process.draws import draw_evaluation, draw_training
from engine.data.batch_plan import Draw
from engine.datasets.labelled import LabelledImages
from engine.images.preprocessing import Preprocessing, resolve_preprocessing
from engine.images.transforms import ImageStep, resize_steps
from engine.seed import derive, sample_randomness


def preprocessing_of(data: DiffusionDataConfig) -> Preprocessing:
    """Returns what brings images to their size; nothing is cut off but what `data.crop_pct` says."""
    crop_pct = 1.0 if data.crop_pct == "auto" else data.crop_pct
    return resolve_preprocessing(data, None, resize=data.resize, crop_pct=crop_pct, pad_fill=data.pad_fill)


class PixelTransform:
    """Makes of an image uint8 (C, H, W), a function of the image and the 64-bit seed.

    Args:
        preprocessing: Size of the images.
        channels: 1 or 3.
        augmentation: What may happen to them; None: nothing.
    """

    def __init__(self, preprocessing: Preprocessing, channels: int, augmentation: AugmentationConfig | None) -> None:
        steps: list[ImageStep] = resize_steps(preprocessing)
        if augmentation is not None:
            if crop := augmentation.random_crop:
                interpolation = v2.InterpolationMode(preprocessing.interpolation)
                steps = [v2.RandomResizedCrop(preprocessing.size, crop.scale, crop.ratio, interpolation)]
            if augmentation.horizontal_flip:
                steps.append(v2.RandomHorizontalFlip(augmentation.horizontal_flip))
            if augmentation.vertical_flip:
                steps.append(v2.RandomVerticalFlip(augmentation.vertical_flip))
        self._steps, self._mode = v2.Compose(steps), {1: "L", 3: "RGB"}[channels]

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        with sample_randomness(seed):
            image = self._steps(image)
        pixels = torch.from_numpy(np.array(image.convert(self._mode)))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class NoisyReader:
    """Reads images and draws what is random about their noise.

    A sample is ``image`` (uint8, C x H x W), ``label`` (0 where there are no classes), ``index``, and what
    :class:`diffusion.process.draws.Draws` says: ``noise``, ``time``, ``drop``. In training it is a function of the
    draw's epoch and position and of ``seed``; in evaluation of its index.
    """

    images: LabelledImages
    transform: Callable[[Image.Image, int], Tensor]
    seed: int
    shape: tuple[int, int, int]
    """(C, H, W)."""
    training: bool
    stratified: int | None = None
    """Size of the global batch over which times are stratified; None: they are not."""

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        if self.training:
            drawn = draw_training(self.seed, draw, self.shape, self.stratified)
        else:
            drawn = draw_evaluation(self.seed, draw.index, self.shape)
        seed = derive(self.seed, "augmentation", draw.epoch, draw.position)
        return {
            "image": self.transform(self.images.image(draw.index), seed),
            "label": 0 if self.images.multi_label else int(self.images.labels[draw.index]),
            "index": draw.index,
            "noise": torch.from_numpy(drawn.noise),
            "time": drawn.time,
            "drop": drawn.drop,
        }
