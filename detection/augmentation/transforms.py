"""From a decoded image and its boxes to the model's input: SSD's augmentation by torchvision."""

from __future__ import annotations

import math
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from detection.augmentation.iou_crop import IoUCrop
from detection.augmentation.mosaic import mosaic
from detection.augmentation.sections import AugmentationConfig
from detection.data.annotations import AnnotatedImages
from detection.data.sample import CROWD, Sample, read_sample
from engine.data.batch_plan import Draw
from engine.images.preprocessing import Preprocessing
from engine.images.transforms import EvalTransform, to_tensor
from engine.seed import derive, generator, sample_randomness

PANORAMA = 8
"""A longer side, relative to the model's, is shrunk to so many times the shorter one before anything is made of it."""


class TrainTransform:
    """Augments a sample: a function of the sample and the 64-bit seed.

    Gives a dict of ``image``, uint8 (3, height, width), ``boxes`` (n, 4) xyxy in [0, 1], ``labels`` (n,) from 0 on, and
    ``ignored`` (k, 4), what is left of regions to ignore. Objects whose centre a crop leaves out are gone, as in SSD.

    An image larger than the smallest crop can use, such as a camera's, is made smaller first, to twice the model's
    size at least.
    """

    def __init__(self, preprocessing: Preprocessing, augmentation: AugmentationConfig) -> None:
        height, width = preprocessing.size
        self._steps = v2.Compose(_steps(preprocessing, augmentation))
        self._scale = torch.tensor([1 / width, 1 / height] * 2)
        self._least = augmentation.min_box_pixels
        smallest = min(0.5, augmentation.iou_crop.scale[0] if augmentation.iou_crop else 1.0)
        self._enough = (math.ceil(width / smallest), math.ceil(height / smallest))
        self._resampling = Image.Resampling[preprocessing.interpolation.upper()]

    def __call__(self, sample: Sample, seed: int) -> dict[str, Tensor]:
        sample = shrunk(sample, self._enough, self._resampling)
        canvas = (sample.image.height, sample.image.width)
        boxes = tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=canvas)
        with sample_randomness(seed):
            out = self._steps({"image": sample.image, "boxes": boxes, "labels": sample.labels})
        boxes, labels = out["boxes"].as_subclass(Tensor), out["labels"]
        sides = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1)
        objects = (labels != CROWD) & (sides >= self._least)
        return {
            "image": to_tensor(out["image"]),
            "boxes": boxes[objects] * self._scale,
            "labels": labels[objects],
            "ignored": boxes[(labels == CROWD) & (sides > 0)] * self._scale,
        }


class TrainReader:
    """Reads and augments images; see :class:`engine.data.workers.SampleReader`.

    A sample is what :class:`TrainTransform` gives, with ``index``. Its randomness, the partners in a mosaic among it,
    follows from (seed, epoch, position).
    """

    def __init__(
        self, images: AnnotatedImages, preprocessing: Preprocessing, augmentation: AugmentationConfig, seed: int
    ) -> None:
        self._images = images
        self._transform = TrainTransform(preprocessing, augmentation)
        self._mosaic = augmentation.mosaic
        self._canvas = (2 * preprocessing.height, 2 * preprocessing.width)  # a quarter is as fine as a whole image
        self._resampling = Image.Resampling[preprocessing.interpolation.upper()]
        self._seed = seed

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        seed = derive(self._seed, "augmentation", draw.epoch, draw.position)
        return {**self._transform(self._sample(draw), seed), "index": draw.index}

    def _sample(self, draw: Draw) -> Sample:
        """Reads the image of a draw, or puts together the mosaic that it is a part of."""
        own = self._read(draw.index)
        rng = generator(self._seed, "mosaic", draw.epoch, draw.position)
        if self._mosaic is None or rng.random() >= self._mosaic.probability:
            return own
        partners = [self._read(int(index)) for index in rng.integers(len(self._images), size=3)]
        x, y = rng.uniform(*self._mosaic.centre, size=2).tolist()
        together = [own, *partners]
        order = rng.permutation(4)
        return mosaic([together[place] for place in order], self._canvas, (x, y), self._mosaic.visible)

    def _read(self, index: int) -> Sample:
        """Reads an image. The longer side of a strip is shrunk by itself, so that nothing made of it is huge."""
        sample = read_sample(self._images, index)
        width, height = sample.image.size
        parts = (width / self._canvas[1], height / self._canvas[0])
        most = PANORAMA * max(1.0, min(parts))
        size = [round(side * min(1.0, most / part)) for side, part in zip((width, height), parts, strict=True)]
        return resized(sample, (size[0], size[1]), self._resampling)


class EvalReader:
    """Reads images as they are: ``image``, uint8 (3, height, width), and ``index``."""

    def __init__(self, images: AnnotatedImages, transform: EvalTransform) -> None:
        self._images, self._transform = images, transform

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        return {"image": self._transform(self._images.image(draw.index)), "index": draw.index}


def shrunk(sample: Sample, enough: tuple[int, int], resampling: Image.Resampling) -> Sample:
    """Shrinks ``sample`` in its proportions, no further than to have at least the width and height ``enough``."""
    before = sample.image.size
    factor = max(least / side for least, side in zip(enough, before, strict=True))
    if factor >= 1:
        return sample
    return resized(sample, (round(before[0] * factor), round(before[1] * factor)), resampling)


def resized(sample: Sample, size: tuple[int, int], resampling: Image.Resampling) -> Sample:
    """Shrinks ``sample`` to ``size``, width and height; as it is if it has that already."""
    if size == sample.image.size:
        return sample
    image = sample.image.resize(size, resampling, reducing_gap=3.0)
    scale = torch.tensor([new / old for new, old in zip(size, sample.image.size, strict=True)] * 2)
    return Sample(image, sample.boxes * scale, sample.labels)


def _steps(preprocessing: Preprocessing, augmentation: AugmentationConfig) -> list[Any]:
    """Flips and colours come last: on an image of the model's size they cost a third of what they cost on a larger."""
    steps: list[Any] = []
    if zoom := augmentation.zoom_out:
        steps.append(v2.RandomZoomOut(preprocessing.fill, (1.0, zoom.largest), zoom.probability))
    if crop := augmentation.iou_crop:
        steps.append(IoUCrop(crop))
    interpolation = v2.InterpolationMode(preprocessing.interpolation)
    steps += [v2.Resize(list(preprocessing.size), interpolation), v2.ClampBoundingBoxes()]
    if augmentation.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(augmentation.horizontal_flip))
    if augmentation.vertical_flip:
        steps.append(v2.RandomVerticalFlip(augmentation.vertical_flip))
    if colours := augmentation.photometric:
        factors = (colours.brightness, colours.contrast, colours.saturation, (-colours.hue, colours.hue))
        steps.append(v2.RandomPhotometricDistort(*factors, colours.probability))
    return steps
