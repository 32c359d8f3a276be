"""Micro-batches on the device, one ahead of the computation, and how fast they go through."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from engine.data.loaders import MicroBatch


class DeviceBatches:
    """Takes micro-batches to the device and measures how long they were waited for."""

    def __init__(self, source: Iterable[MicroBatch], device: torch.device) -> None:
        self._source = iter(source)
        self._device = device
        self._ready: MicroBatch | None = None
        self.wait_seconds = 0.0

    def next(self) -> MicroBatch:
        """Returns the next micro-batch. Asking for more than the source has is an error of the caller."""
        self.prefetch()
        batch, self._ready = self._ready, None
        assert batch is not None, "the loader ended before the run"
        return batch

    def prefetch(self) -> None:
        """Queues the copy of the next micro-batch, if there is one and it is not queued yet."""
        if self._ready is not None:
            return
        begin = time.perf_counter()
        batch = next(self._source, None)
        self.wait_seconds += time.perf_counter() - begin
        if batch is not None:
            data = {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.data.items()}
            self._ready = replace(batch, data=data)


@dataclass
class Throughput:
    """Samples a second, and the part of the time that was spent waiting for data."""

    samples: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0

    def add(self, samples: int, seconds: float, wait_seconds: float) -> None:
        """Adds an optimizer step of the global batch."""
        self.samples += samples
        self.seconds += seconds
        self.wait_seconds += wait_seconds

    def metrics(self, devices: int) -> dict[str, float]:
        """Returns ``images_per_second``, over all ranks and on each of ``devices``, and ``data_wait_fraction``."""
        if not self.seconds:
            return {}
        return {
            "images_per_second": self.samples / self.seconds,
            "images_per_second_per_device": self.samples / self.seconds / devices,
            "data_wait_fraction": min(1.0, self.wait_seconds / self.seconds),
        }
