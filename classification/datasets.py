"""From the `data` section to samples: opens a split and reads its pictures, augmented, one draw at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classification.data_config import DigitsData, FolderData, TorchvisionData
from classification.folders import open_folder
from classification.sources import LabelledPictures, download, open_digits, open_torchvision
from engine.batches import Draw
from engine.errors import UserError
from engine.seed import derive

Transform = Callable[[Image.Image, int], Tensor]
"""Makes a uint8 (3, H, W) tensor of a picture; what is random about it follows from the 64-bit seed."""


def prepare_data(data: FolderData | TorchvisionData | DigitsData) -> None:
    """Fetches what is missing, if the configuration says so. For one process of a node, before the others open it."""
    if isinstance(data, TorchvisionData) and data.download:
        download(data)


def open_pictures(data: FolderData | TorchvisionData | DigitsData, split: str) -> LabelledPictures:
    """The pictures of ``split``: train, val or test.

    Raises:
        UserError: the data are not there, or not as they should be.
    """
    if isinstance(data, FolderData):
        return open_folder(data, split)
    if split == "test":
        raise UserError(f"data.source: {data.source} has no test split besides val, which holds its held-out pictures")
    return open_digits(split) if isinstance(data, DigitsData) else open_torchvision(data, split)


class PictureReader:
    """Reads and transforms pictures, for training or evaluation.

    A sample is a dict of ``image`` (uint8 tensor, 3 x H x W), ``label``, ``index``, ``epoch`` and ``position``. It is a
    function of the draw and ``seed`` alone. The label is a class number, or with several labels a picture a float32
    tensor (C,) of 0 and 1.
    """

    def __init__(self, pictures: LabelledPictures, transform: Transform, seed: int) -> None:
        self.pictures = pictures
        self._transform = transform
        self._seed = seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        label = self.pictures.labels[draw.index]
        seed = derive(self._seed, "augmentation", draw.epoch, draw.position)
        return {
            "image": self._transform(self.pictures.picture(draw.index), seed),
            "label": torch.from_numpy(label.astype(np.float32)) if self.pictures.multi_label else int(label),
            "index": draw.index,
            "epoch": draw.epoch,
            "position": draw.position,
        }
