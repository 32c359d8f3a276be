"""From the `data` section to samples: opens a split and reads its images, augmented, one draw at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.batch_plan import Draw
from engine.data.shards import stage_on_nodes
from engine.data.workers import ReadsImages
from engine.datasets.class_folders import open_folder
from engine.datasets.csv_labels import open_csv
from engine.datasets.labelled import FileImages, LabelledImages, class_counts, indexed, open_digits, some
from engine.datasets.preflight import located
from engine.datasets.sections import (
    TINY,
    CommonData,
    CsvData,
    CsvFiles,
    DataConfig,
    DigitsData,
    FolderData,
    ShardData,
    SplitData,
    TorchvisionData,
)
from engine.datasets.shard_images import open_shards, shards_of
from engine.datasets.torchvision_sets import download, open_torchvision
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.images.lazy_image import LazyImage
from engine.images.preprocessing import Preprocessing, resolve_preprocessing
from engine.seed import derive
from engine.text import LONGEST, shortened

Transform = Callable[[LazyImage, int], Tensor]
"""Makes a uint8 (3, H, W) tensor of an image; what is random about it follows from the 64-bit seed."""


def prepare_data(data: CommonData) -> None:
    """Fetches what is missing, if the configuration says so."""
    if isinstance(data, TorchvisionData) and data.download:
        download(data)


def prepare_on_all(data: CommonData, ranks: Ranks) -> None:
    """Fetches what is missing, first on rank 0, then on one rank of each other node: a shared folder is whole by then.
    Copies shards to each node, if they are to be staged.

    Raises:
        UserError: on every rank, if rank 0 cannot.
    """
    ranks.from_main(partial(prepare_data, data))
    if ranks.layout.local_rank == 0 and not ranks.is_main:
        prepare_data(data)
    ranks.barrier()
    if isinstance(data, ShardData) and data.stage:
        stage_on_nodes(partial(shards_of, data.root), ranks)


def open_images(data: DataConfig, split: str, classes: list[str] | None = None) -> LabelledImages:
    """Opens the images of ``split``: train, val or test.

    ``classes``: those that a trained model knows; of class folders and CSV files, train need not be there then.

    Raises:
        UserError: the data are not there, or not as they should be.
    """
    match data:
        case FolderData():
            return open_folder(data, split, classes)
        case CsvData():
            key = data.model_dump(mode="json", include={*CsvData.model_fields} - {*CommonData.model_fields})
            return indexed(data.root, [key, split, classes], partial(_listed_in_csv, data, split, classes))
        case ShardData():
            return open_shards(data, split)
        case TorchvisionData():
            if data.source in TINY:  # a few arrays of pixels, which have to be read anyhow
                return open_torchvision(data, split)
            made = [data.val_fraction, data.split_seed]
            return indexed(data.root, [data.source, split, made], partial(_listed_by_torchvision, data, split))
        case DigitsData():
            if split == "test":
                raise UserError("data.source: digits has no test split besides val, which holds its held-out images")
            return open_digits(split)


def _listed_in_csv(data: CsvData, split: str, classes: list[str] | None, watched: list[str]) -> FileImages:
    tables = data.csv.model_dump().values() if isinstance(data.csv, CsvFiles) else [data.csv]
    watched += [os.fspath(table) for table in tables if table is not None]
    return located(open_csv(data, split, classes), watched)


def _listed_by_torchvision(data: TorchvisionData, split: str, watched: list[str]) -> FileImages:
    images = open_torchvision(data, split)
    assert isinstance(images, FileImages)
    for folder in {name.partition("/")[0] for name in images.names}:  # also of what says which image is which
        watched += [path for path, _, _ in os.walk(data.root / folder)]
    watched += [entry.path for entry in os.scandir(data.root) if entry.is_file()]
    return located(images, watched)


def preprocessing_of(data: DataConfig, published_name: str | None) -> Preprocessing:
    """Returns the images' preprocessing, see :func:`resolve_preprocessing`. Of tiny ones all is kept."""
    crop_pct = 1.0 if data.source in TINY and data.crop_pct == "auto" else data.crop_pct
    return resolve_preprocessing(data, published_name, resize=data.resize, crop_pct=crop_pct, pad_fill=data.pad_fill)


def split_made(data: CommonData) -> dict[str, float]:
    """Says how val was taken from train; empty if it was not."""
    if not isinstance(data, SplitData) or data.val_fraction is None:
        return {}
    return {"val_fraction": data.val_fraction, "split_seed": data.split_seed}


def described(data: CommonData, train: LabelledImages, val: LabelledImages, draws: int) -> str:
    """Describes the data in a line of the log: counts and classes, where val is from, what an epoch is."""
    counts = class_counts(train)
    few, many = counts.min(), counts.max()
    sizes = f"{few} to {many}" if few < many else str(few)
    text = f"{len(train)} training images of {len(train.classes)} classes ({sizes} each), "
    text += f"{len(val)} images of val"
    if made := split_made(data):
        text += f", held out of train class by class (val_fraction {made['val_fraction']}, seed {made['split_seed']})"
    if data.sampling != "natural":
        text += f"; {data.sampling} sampling"
    if draws != len(train):
        text += f"; {draws} draws an epoch, as rare classes are oversampled"
    return f"{text}; classes: {some([shortened(' '.join(name.split()), LONGEST) for name in train.classes])}"


class ImageReader(ReadsImages):
    """Reads and transforms images, for training or evaluation.

    A sample is a dict of ``image`` (uint8 tensor, 3 x H x W), ``label``, ``index``, ``epoch`` and ``position``. It is a
    function of the draw and ``seed`` alone. The label is a class number, or with several labels an image a float32
    tensor (C,) of 0 and 1.
    """

    def __init__(self, images: LabelledImages, transform: Transform, seed: int) -> None:
        self.images = images
        self._transform = transform
        self._seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        label = self.images.labels[draw.index]
        seed = derive(self._seed, "augmentation", draw.epoch, draw.position)
        return {
            "image": self._transform(self.images.image(draw.index), seed),
            "label": torch.from_numpy(label.astype(np.float32)) if self.images.multi_label else int(label),
            "index": draw.index,
            "epoch": draw.epoch,
            "position": draw.position,
        }
