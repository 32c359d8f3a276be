"""Loaders for training and evaluation.

The order of samples, the cut into batches and everything random are functions of (seed, epoch, position), so a loader
has no state to save: a resumed run starts it at the step that comes next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.data.batch_plan import BatchLayout, Draw, Order, Slot
from engine.data.workers import SampleReader, WorkerSettings, read_batches
from engine.distributed.ranks import Ranks


@dataclass(frozen=True)
class MicroBatchSampler:
    """The draws of one rank's micro-batches, from ``start_step`` on over all epochs, up to ``stop_step`` if given.

    Starting anywhere costs one shuffle of an epoch's indices and reads no sample.
    """

    order: Order
    layout: BatchLayout
    rank: int = 0
    start_step: int = 0
    stop_step: int | None = None

    def slots(self) -> Iterator[Slot]:
        """Yields the same micro-batches as slots of the layout."""
        assert self.order.num_samples == self.layout.num_samples
        for step in itertools.count(self.start_step):
            if self.stop_step is not None and step >= self.stop_step:
                return
            for micro_step in range(self.layout.accumulation):
                yield self.layout.slot(step, micro_step, self.rank)

    def __iter__(self) -> Iterator[list[Draw]]:
        for epoch, slots in itertools.groupby(self.slots(), key=lambda slot: slot.epoch):
            indices = self.order(epoch)
            for slot in slots:
                yield [Draw(int(indices[position]), epoch, position) for position in slot.positions]


@dataclass(frozen=True)
class MicroBatch:
    """One rank's part of one micro-step, with the samples for it."""

    slot: Slot
    data: Any
    """The collated samples."""


@dataclass(frozen=True)
class TrainLoader:
    """One rank's micro-batches, from ``start_step`` on, without end unless ``stop_step`` is given.

    Iterating starts the workers; leaving the iteration ends them. :meth:`MicroBatchSampler.slots` says what comes.
    """

    reader: SampleReader
    sampler: MicroBatchSampler
    settings: WorkerSettings

    def __iter__(self) -> Iterator[MicroBatch]:
        with closing(read_batches(self.reader, self.sampler, self.settings)) as batches:
            for slot, data in zip(self.sampler.slots(), batches, strict=True):
                yield MicroBatch(slot, data)


@dataclass(frozen=True)
class EvalBatch:
    """One block of an evaluation."""

    indices: NDArray[np.int64]
    """The samples, (B,)."""
    data: Any
    """The collated samples."""


class EvaluationStopped(Exception):
    """A rank was asked to stop in the middle of an evaluation. Raised on all ranks alike."""


class EvalLoader:
    """One rank's share of an evaluation: every ``world_size``-th block of ``batch_size`` samples.

    The blocks are the same for any number of ranks, the last one may be short, and no sample is repeated; results
    gathered from all ranks are therefore those of one rank, bit for bit. Ranks may have different numbers of blocks.

    Every rank has to iterate to the end, where they agree on whether one of them was asked to stop: then
    :class:`EvaluationStopped` is raised.
    """

    def __init__(
        self,
        reader: SampleReader,
        num_samples: int,
        batch_size: int,
        settings: WorkerSettings,
        ranks: Ranks,
    ) -> None:
        self._reader = reader
        # An image that is skipped would be missing in what is measured.
        self._settings = replace(settings, patience=replace(settings.patience, max_unreadable=0))
        self._ranks = ranks
        self._blocks = [
            range(first, min(first + batch_size, num_samples))
            for first in range(ranks.rank * batch_size, num_samples, ranks.world_size * batch_size)
        ]

    def __len__(self) -> int:
        """Returns the number of this rank's blocks."""
        return len(self._blocks)

    def __iter__(self) -> Iterator[EvalBatch]:
        self._ranks.heartbeat.at("evaluate")
        draws = [[Draw(index, 0, index) for index in block] for block in self._blocks]
        with closing(read_batches(self._reader, draws, self._settings)) as batches:
            for block, data in zip(self._blocks, batches, strict=True):
                yield EvalBatch(np.array(block), data)
                self._ranks.heartbeat.tick()
                if self._ranks.stop:
                    break
        self._ranks.heartbeat.at("gather")
        if self._ranks.sum_(torch.tensor(float(bool(self._ranks.stop)), device=self._ranks.device)).item():
            raise EvaluationStopped
