"""Reading of images by worker processes: how, and from files of which nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.batch_plan import Draw
from engine.data.lost_workers import room_for_batches
from engine.data.names import Names
from engine.data.read_ahead import READ_THREADS, FileReader
from engine.data.read_meter import ReadMeter
from engine.data.unreadable import Patience
from engine.data.workers import WorkerSettings, resolve_workers, stacked
from engine.devices.kinds import device_kind
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.images.lazy_image import LazyImage, load_image
from engine.images.sections import ImageData


def worker_settings(data: ImageData, ranks: Ranks, collate: Callable[[list[Any]], Any] = stacked) -> WorkerSettings:
    """Returns how this rank reads images; ``collate`` makes batches of samples."""
    workers, (height, width) = resolve_workers(data.workers, ranks.layout), data.size
    settings = WorkerSettings(
        workers=workers,
        prefetch=data.prefetch,
        sample_bytes=3 * height * width,
        pin_memory=device_kind(ranks.device).pin_memory,
        multiprocessing_context=data.multiprocessing_context,
        collate=collate,
        read_threads=READ_THREADS if data.read_threads == "auto" else data.read_threads,
        meter=ReadMeter(workers, exact=data.decode == "exact"),
        patience=Patience(data.read_timeout_seconds, data.max_unreadable),
    )
    if settings.fill_own_memory:
        return settings
    return replace(settings, ready_bytes=room_for_batches(ranks.layout.local_world_size))


class ImageFileReader:
    """Reads files for a model.

    A sample is ``image``, uint8 (3, H, W), ``index``, ``size``, (2,) width and height of the image in the file, and
    ``fault``: empty, or why the file is no image. The others are of a black image then.
    """

    def __init__(self, files: Names, transform: Callable[[LazyImage], Tensor]) -> None:
        self._files, self._transform = files, transform
        self._reader = FileReader()

    @property
    def wait_seconds(self) -> float:
        """Returns the time in which this process has waited for files."""
        return self._reader.wait_seconds

    def announce(self, draws: Sequence[Draw], threads: int) -> None:
        """Begins to read the files of draws that come next."""
        self._reader.announce((Path(self._files[draw.index]) for draw in draws), threads)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        fault = ""
        try:
            path = Path(self._files[draw.index])
            image = load_image(path, self._reader.read(path))
            pixels = self._transform(image)
        except UserError as error:
            image, fault = LazyImage.of(np.zeros((64, 64, 3), np.uint8)), str(error)
            pixels = self._transform(image)
        return {"image": pixels, "index": draw.index, "size": torch.tensor(image.size), "fault": fault}
