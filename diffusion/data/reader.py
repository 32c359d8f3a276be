"""One image on its way to the network, with the noise that it is given, drawn where it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion.data.sections import AugmentationConfig, DiffusionDataConfig
from diffusion.process.draws import draw_evaluation, draw_training
from engine.augmentation.draws import draw_crop, happens
from engine.data.batch_plan import Draw
from engine.data.workers import ReadsImages
from engine.datasets.labelled import LabelledImages
from engine.devices.opencv import cv2
from engine.images.lazy_image import LazyImage
from engine.images.preprocessing import Preprocessing, resolve_preprocessing
from engine.images.transforms import resize_step, resizer_of, to_tensor
from engine.seed import derive, torch_randomness


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
        self._resize, self._resizer = resize_step(preprocessing), resizer_of(preprocessing)
        self._size, self._channels = preprocessing.size, channels
        self._augmentation = augmentation or AugmentationConfig()

    def __call__(self, image: LazyImage, seed: int) -> Tensor:
        given = self._augmentation
        with torch_randomness(seed):
            if crop := given.random_crop:
                pixels = self._resizer(image, *self._size, draw_crop(*image.size, crop.scale, crop.ratio))
            else:
                pixels = self._resize(image)
            if given.horizontal_flip and happens(given.horizontal_flip):
                pixels = cv2.flip(pixels, 1)
            if given.vertical_flip and happens(given.vertical_flip):
                pixels = cv2.flip(pixels, 0)
        if self._channels == 1:
            return torch.from_numpy(np.array(Image.fromarray(pixels).convert("L")))[None]
        return to_tensor(pixels)


@dataclass(frozen=True)
class NoisyReader(ReadsImages):
    """Reads images and draws what is random about their noise.

    A sample is ``image`` (uint8, C x H x W), ``label`` (0 where there are no classes), ``index``, and what
    :class:`diffusion.process.draws.Draws` says: ``noise``, ``time``, ``drop``. In training it is a function of the
    draw's epoch and position and of ``seed``; in evaluation of its index.
    """

    images: LabelledImages
    transform: Callable[[LazyImage, int], Tensor]
    seed: int
    shape: tuple[int, int, int]
    """(C, H, W)."""
    training: bool
    stratified: int | None = None
    """Size of the global batch over which times are stratified; None: they are not."""

    def __len__(self) -> int:
        return len(self.images)

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
