"""A classifier of brightness, which judges without having been trained."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from engine.images.lazy_image import LazyImage
from engine.images.transforms import to_tensor


class Brightness:
    """Tells dark from bright images by their mean; its features are their colours. It looks at 4 x 4 pixels."""

    multi_label = False

    def __init__(self, classes: tuple[str, ...] = ("bright", "dark"), channels: int = 3) -> None:
        self.classes = list(classes)
        self.model = nn.Identity()
        self._channels = channels

    def transform(self, image: LazyImage) -> Tensor:
        return to_tensor(np.array(image.pillow().resize((4, 4), Image.Resampling.BOX)))[: self._channels]

    def answers(self, images: Tensor, sizes: Tensor) -> list[str]:
        return [self.classes[number] for number in self.features(images)[1].argmax(1).tolist()]

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        colours = images.double().mean((2, 3))
        bright = colours.mean(1, keepdim=True) / 255
        return colours, torch.cat([bright, 1 - bright], 1)
