"""Spaces in which images are compared: plain pixels, or what the last layer of a trained classifier is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.datasets.labelled import some
from engine.errors import UserError
from engine.images.lazy_image import LazyImage
from engine.task.inference import ClassifierInference

SIDE = 8
"""Pixels of the longest side of what plain pixels are compared of: of more, covariances would need too many images."""


class Seen(NamedTuple):
    """What a space makes of B images, on its device."""

    features: Tensor
    """(B, F) float32 or float64."""
    classes: Tensor | None
    """(B,) int64: what a judge takes them for, by the numbers of the images' own classes; None without a judge."""


class Space(Protocol):
    """Maps images to features."""

    name: str
    """What figures are in, for reports."""
    resize: str
    """How images are brought to the size that it takes, for reports."""
    width: int
    """F."""

    def __call__(self, images: Tensor) -> Seen:
        """Maps uint8 images (B, C, H, W), on any device."""
        ...


class Pixels:
    """The pixels of images that are made small by areas.

    The Euclidean distance of two is the root of their mean squared difference, in levels of 0 to 255, whatever size
    and channels they have: 0 to 255.
    """

    name = "pixels, in levels of 0 to 255"

    def __init__(self, shape: tuple[int, int, int], device: torch.device) -> None:
        """
        Args:
            shape: (C, H, W) of the images.
            device: Where features are.
        """
        channels, height, width = shape
        self._size, self._device = (min(height, SIDE), min(width, SIDE)), device
        self.resize = f"means of areas, {height} x {width} to {self._size[0]} x {self._size[1]}"
        self.width = channels * self._size[0] * self._size[1]

    def __call__(self, images: Tensor) -> Seen:
        small = F.adaptive_avg_pool2d(images.to(self._device, torch.float64), self._size)
        return Seen(small.flatten(1) / self.width**0.5, None)


class Judged:
    """The features of a trained classifier. It sees images as if they were files: resized as its own run did."""

    def __init__(
        self,
        judge: ClassifierInference,
        shape: tuple[int, int, int],
        classes: Sequence[str] | None,
        device: torch.device,
        name: str,
        key: str,
    ) -> None:
        """
        Args:
            judge: The classifier, on `device`.
            shape: (C, H, W) of the images.
            classes: Names of theirs, by number, in any order that the judge may have; None: they have none.
            device: Where images are judged.
            name: What reports call the judge.
            key: What of the configuration names it, for messages.

        Raises:
            UserError: its classes or channels are others.
        """
        self._judge, self._device, self.name = judge, device, name
        self._judge.model.eval()
        self._numbers = None if classes is None else _numbers_of(judge, classes, name, key).to(device)
        sample = judge.transform(shown(torch.zeros(shape, dtype=torch.uint8)))
        if shape[0] not in (1, len(sample)):
            raise UserError(
                f"{key}: {name} looks at images of {len(sample)} channel(s), but those to be judged have {shape[0]}; "
                "name a classifier of such images, or null to compare pixels"
            )
        self.resize = f"as the judge does, {shape[1]} x {shape[2]} to {sample.shape[1]} x {sample.shape[2]}"
        self.width = self._features(sample[None])[0].shape[1]

    def __call__(self, images: Tensor) -> Seen:
        inputs = torch.stack([self._judge.transform(shown(image)) for image in images.cpu()])
        features, probabilities = self._features(inputs)
        return Seen(features, None if self._numbers is None else self._numbers[probabilities.argmax(1)])

    def _features(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Asks the judge, in single precision whatever the images were made in."""
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            return self._judge.features(inputs.to(self._device))


def _numbers_of(judge: ClassifierInference, classes: Sequence[str], name: str, key: str) -> Tensor:
    """Returns the images' numbers of the judge's classes (K,), which have the same names."""
    if judge.multi_label:
        raise UserError(
            f"{key}: {name} says several labels of an image, and cannot say which one class it shows; name a "
            "classifier of one label an image, or null to compare pixels"
        )
    if sorted(judge.classes) != sorted(classes):
        unknown = [c for c in classes if c not in judge.classes]
        surplus = [c for c in judge.classes if c not in classes]
        parts = [f"{what} {some(names)}" for what, names in (("lacks", unknown), ("also has", surplus)) if names]
        raise UserError(
            f"{key}: {name} was trained on other classes than these images have: it {' and it '.join(parts)}; name a "
            f"classifier of the same {len(classes)} classes, or null to compare pixels"
        )
    return torch.tensor([list(classes).index(c) for c in judge.classes])


def shown(image: Tensor) -> LazyImage:
    """Returns uint8 (C, H, W) as an image of a file would be: grey ones in three equal channels."""
    return LazyImage.of(image.expand(3, -1, -1).permute(1, 2, 0).numpy().copy())
