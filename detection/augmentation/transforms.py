"""From an image and its boxes to the model's input: SSD's augmentation.

Geometry is drawn and reckoned first, then one part of the image is decoded and resized, and colours come last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detection.augmentation.iou_crop import choose_part
from detection.augmentation.mosaic import mosaic
from detection.augmentation.sections import AugmentationConfig, PhotometricConfig, ZoomOutConfig
from detection.augmentation.view import View, seen, whole
from detection.data.annotations import AnnotatedImages
from detection.data.sample import CROWD, Sample, read_sample
from engine.augmentation import colours
from engine.augmentation.draws import happens, uniform
from engine.data.batch_plan import Draw
from engine.data.workers import ReadsImages
from engine.devices.opencv import cv2
from engine.images.image_io import ImageArray
from engine.images.preprocessing import Preprocessing
from engine.images.transforms import EvalTransform, Resizer, resizer_of, to_tensor
from engine.seed import derive, generator, torch_randomness

PANORAMA = 8
"""A longer side, relative to the model's, counts as at most so many times the shorter one."""


class TrainTransform:
    """Augments a sample: a function of the sample and the 64-bit seed.

    Gives a dict of ``image``, uint8 (3, height, width), ``boxes`` (n, 4) xyxy in [0, 1], ``labels`` (n,) from 0 on, and
    ``ignored`` (k, 4), what is left of regions to ignore. Objects whose centre a crop leaves out are gone, as in SSD.
    """

    def __init__(self, preprocessing: Preprocessing, augmentation: AugmentationConfig) -> None:
        self._height, self._width = preprocessing.size
        self._fill, self._resizer = preprocessing.fill, resizer_of(preprocessing)
        self._augmentation = augmentation

    def __call__(self, sample: Sample, seed: int) -> dict[str, Tensor]:
        given = self._augmentation
        with torch_randomness(seed):
            view, boxes, labels = self._drawn(sample)
            size = (self._height, self._width)
            pixels, factors, summands = seen(sample.image, view, size, self._resizer, self._fill)
            boxes = boxes * factors + summands
            if given.horizontal_flip and happens(given.horizontal_flip):
                pixels = cv2.flip(pixels, 1)
                boxes = torch.stack([self._width - boxes[:, 2], boxes[:, 1], self._width - boxes[:, 0], boxes[:, 3]], 1)
            if given.vertical_flip and happens(given.vertical_flip):
                pixels = cv2.flip(pixels, 0)
                boxes = torch.stack(
                    [boxes[:, 0], self._height - boxes[:, 3], boxes[:, 2], self._height - boxes[:, 1]], 1
                )
            if given.photometric is not None:
                pixels = distorted(pixels, given.photometric)
        extent = torch.tensor([self._width, self._height] * 2)
        boxes = boxes.clamp(min=0).minimum(extent)
        sides = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1)
        objects = (labels != CROWD) & (sides >= given.min_box_pixels)
        return {
            "image": to_tensor(pixels),
            "boxes": boxes[objects] / extent,
            "labels": labels[objects],
            "ignored": boxes[(labels == CROWD) & (sides > 0)] / extent,
        }

    def _drawn(self, sample: Sample) -> tuple[View, Tensor, Tensor]:
        """Draws what is seen of an image; with boxes in the view's frame, and labels, of what is left to see."""
        given, labels = self._augmentation, sample.labels
        frame = self._frame(*sample.image.size)
        boxes = sample.boxes * torch.tensor([new / old for new, old in zip(frame, sample.image.size, strict=True)] * 2)
        view = zoomed_out(frame, given.zoom_out) if given.zoom_out else whole(frame)
        if given.iou_crop is not None:
            left, top, right, bottom = view.box
            objects = labels != CROWD
            moved = boxes[objects] - torch.tensor([left, top] * 2)
            if (found := choose_part(moved, (bottom - top, right - left), given.iou_crop)) is not None:
                part, inside = found
                view = View(frame, (part[0] + left, part[1] + top, part[2] + left, part[3] + top))
                kept = ~objects
                kept[objects] = inside
                boxes, labels = boxes[kept], labels[kept]
        return view, boxes, labels

    def _frame(self, width: int, height: int) -> tuple[int, int]:
        """Returns the size that counts as an image's: no longer a strip, and no larger than the smallest crop needs.

        Parts have whole pixels of it, so that equal draws give equal parts of an image at any resolution above.
        """
        parts = (width / (2 * self._width), height / (2 * self._height))
        most = PANORAMA * max(1.0, min(parts))
        sides = [round(side * min(1.0, most / part)) for side, part in zip((width, height), parts, strict=True)]
        crop = self._augmentation.iou_crop
        smallest = min(0.5, crop.scale[0] if crop else 1.0)
        enough = (math.ceil(self._width / smallest), math.ceil(self._height / smallest))
        factor = min(1.0, max(least / side for least, side in zip(enough, sides, strict=True)))
        return round(sides[0] * factor), round(sides[1] * factor)


def zoomed_out(frame: tuple[int, int], config: ZoomOutConfig) -> View:
    """Draws a view of more than the image, as torchvision's ``RandomZoomOut``."""
    if not happens(config.probability):
        return whole(frame)
    factor = 1.0 + torch.rand(1) * (config.largest - 1.0)
    sides = [int(side * factor) for side in frame]
    shares = torch.rand(2)
    left, top = (int((side - own) * share) for side, own, share in zip(sides, frame, shares, strict=True))
    return View(frame, (-left, -top, sides[0] - left, sides[1] - top))


def distorted(pixels: ImageArray, config: PhotometricConfig) -> ImageArray:
    """Changes colours as torchvision's ``RandomPhotometricDistort`` draws it."""
    ranges = (config.brightness, config.contrast, config.saturation, (-config.hue, config.hue))
    brightness, contrast, saturation, hue = (
        uniform(*bounds) if happens(config.probability) else None for bounds in ranges
    )
    contrast_first = bool(torch.rand(()) < 0.5)
    order = torch.randperm(3).tolist() if happens(config.probability) else None
    if brightness is not None:
        pixels = colours.brightness(pixels, brightness)
    if contrast is not None and contrast_first:
        pixels = colours.contrast(pixels, contrast)
    if saturation is not None:
        pixels = colours.saturation(pixels, saturation)
    if hue is not None:
        pixels = colours.hue(pixels, hue)
    if contrast is not None and not contrast_first:
        pixels = colours.contrast(pixels, contrast)
    if order is not None:
        channels = cv2.split(pixels)
        pixels = cv2.merge([channels[place] for place in order])
    return pixels


class TrainReader(ReadsImages):
    """Reads and augments images; see :class:`engine.data.workers.SampleReader`.

    A sample is what :class:`TrainTransform` gives, with ``index``. Its randomness, the partners in a mosaic among it,
    follows from (seed, epoch, position).
    """

    def __init__(
        self, images: AnnotatedImages, preprocessing: Preprocessing, augmentation: AugmentationConfig, seed: int
    ) -> None:
        self.images = images
        self._transform = TrainTransform(preprocessing, augmentation)
        self._mosaic = augmentation.mosaic
        self._canvas = (2 * preprocessing.height, 2 * preprocessing.width)  # a quarter is as fine as a whole image
        self._resizer = Resizer("bilinear", resizer_of(preprocessing).exact)
        self._seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        seed = derive(self._seed, "augmentation", draw.epoch, draw.position)
        return {**self._transform(self._sample(draw), seed), "index": draw.index}

    def announce(self, draws: Sequence[Draw], threads: int) -> None:
        """Begins to read the files of draws that come next, of partners in mosaics, too."""
        indices = (index for draw in draws for index in (draw.index, *self._partners(draw)[0]))
        self.images.announce(indices, threads)

    def _partners(self, draw: Draw) -> tuple[list[int], np.random.Generator]:
        """Draws which three images form a mosaic with that of a draw; none if there is none."""
        rng = generator(self._seed, "mosaic", draw.epoch, draw.position)
        if self._mosaic is None or rng.random() >= self._mosaic.probability:
            return [], rng
        return rng.integers(len(self.images), size=3).tolist(), rng

    def _sample(self, draw: Draw) -> Sample:
        """Reads the image of a draw, or puts together the mosaic that it is a part of."""
        own = read_sample(self.images, draw.index)
        partners, rng = self._partners(draw)
        if self._mosaic is None or not partners:
            return own
        x, y = rng.uniform(*self._mosaic.centre, size=2).tolist()
        together = [own, *(read_sample(self.images, index) for index in partners)]
        order = rng.permutation(4)
        return mosaic([together[place] for place in order], self._canvas, (x, y), self._mosaic.visible, self._resizer)


class EvalReader(ReadsImages):
    """Reads images as they are: ``image``, uint8 (3, height, width), and ``index``."""

    def __init__(self, images: AnnotatedImages, transform: EvalTransform) -> None:
        self.images, self._transform = images, transform

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        return {"image": self._transform(self.images.image(draw.index)), "index": draw.index}
