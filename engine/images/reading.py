"""Reading of images by worker processes: how, and from files of which nothing is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from engine.data.batch_plan import Draw
from engine.data.names import Names
from engine.data.workers import WorkerSettings, resolve_workers
from engine.devices.kinds import device_kind
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.images.image_io import read_image, size_in_file
from engine.images.sections import ImageData


def worker_settings(
    data: ImageData, ranks: Ranks, collate: Callable[[list[Any]], Any] = default_collate
) -> WorkerSettings:
    """Returns how this rank reads images; ``collate`` makes batches of samples."""
    return WorkerSettings(
        workers=resolve_workers(data.workers, ranks.layout),
        prefetch=data.prefetch,
        pin_memory=device_kind(ranks.device).pin_memory,
        multiprocessing_context=data.multiprocessing_context,
        collate=collate,
    )


class ImageFileReader:
    """Reads files for a model.

    A sample is ``image``, uint8 (3, H, W), ``index``, ``size``, (2,) width and height of the image in the file, and
    ``fault``: empty, or why the file is no image. The others are of a black image then.
    """

    def __init__(self, files: Names, transform: Callable[[Image.Image], Tensor]) -> None:
        self._files, self._transform = files, transform

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        fault = ""
        try:
            image = read_image(Path(self._files[draw.index]))
        except UserError as error:
            image, fault = Image.new("RGB", (64, 64)), str(error)
        size = torch.tensor(size_in_file(image))
        return {"image": self._transform(image), "index": draw.index, "size": size, "fault": fault}
