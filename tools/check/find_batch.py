"""The largest micro-batch that a device takes: sizes are doubled until one does not fit, then halved in between."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.training.trainer import Trainer

STEPS = 2
"""Steps that are made at each size: only the second has the optimizer's state from its beginning."""
LONGEST = 60.0
"""Seconds that a size may take; larger ones are not tried then."""
FINE = 16
"""The last two sizes differ by less than a part of so many."""


@dataclass(frozen=True)
class Largest:
    """What was found."""

    size: int
    """The largest micro-batch that fits; 0 if not even one sample does."""
    bytes: float
    """What it takes, or is taken to."""
    too_large: int | None
    """The smallest that was seen, or is taken, not to fit; None: nothing was too large."""
    tried: bool
    """Whether the size was tried; else it follows from smaller ones."""


def find_batch(trainer: Trainer, limit: float | None) -> Largest:
    """Tries micro-batches of a trainer, beginning with the one that it has.

    Args:
        limit: Bytes that this process may take on a CPU, where a size that does not fit is never tried: it is known by
            the straight line through the two largest that do. On a GPU the allocator says what does not fit.
    """
    unit, most = trainer.task.slot_multiple, trainer.task.train_order.num_samples
    return search(lambda size: _try(trainer, size), trainer.layout.slot_size, unit, most, limit)


def search(peak: Callable[[int], float | None], start: int, unit: int, most: int, limit: float | None) -> Largest:
    """Returns the largest size, a multiple of ``unit`` up to ``most``, that fits.

    Args:
        peak: Tries a size, and returns the bytes that it took; None if it does not fit.
        start: The first size that is tried.
        limit: What a size may take where ``peak`` must not be asked for more.
    """
    taken: dict[int, float] = {}

    def fits(size: int) -> bool:
        if limit is not None and _expected(taken, size) > limit:
            return False
        found = peak(size)
        if found is not None and (limit is None or found <= limit):
            taken[size] = found
            return True
        return False

    size, too_large = min(start, most) // unit * unit, None
    while size >= unit and not fits(size):
        size, too_large = size // 2 // unit * unit, size
    if not taken:
        return Largest(0, 0.0, too_large, True)
    while too_large is None and size < most:
        begin, larger = time.monotonic(), min(2 * size, most // unit * unit)
        if larger <= size:
            break
        if not fits(larger):
            too_large = larger
        else:
            size = larger
            if time.monotonic() - begin > LONGEST:
                break
    if limit is not None and too_large is not None:  # the line says it, without trying each
        while too_large - size > unit:
            middle = (size + too_large) // 2 // unit * unit
            size, too_large = (middle, too_large) if _expected(taken, middle) <= limit else (size, middle)
        return Largest(size, _expected(taken, size), too_large, size in taken)
    while too_large is not None and too_large - size > max(unit, size // FINE):
        middle = max(size + unit, (size + too_large) // 2 // unit * unit)
        if middle >= too_large:
            break
        size, too_large = (middle, too_large) if fits(middle) else (size, middle)
    return Largest(size, taken[size], too_large, True)


def _expected(taken: dict[int, float], size: int) -> float:
    """Returns what a size takes by the line through the two largest known; of one, in proportion; of none, nothing."""
    if size in taken or not taken:
        return taken.get(size, 0.0)
    known = sorted(taken)[-2:]
    if len(known) == 1:
        return taken[known[0]] * max(1.0, size / known[0])
    small, large = known
    slope = (taken[large] - taken[small]) / (large - small)
    return taken[large] + max(slope, 0.0) * (size - large)


def _try(trainer: Trainer, size: int) -> float | None:
    """Makes steps of one micro-batch of ``size`` samples. Returns the bytes that they took; None if they do not fit."""
    import torch

    from engine.data.batch_plan import BatchLayout
    from engine.data.device_prefetch import DeviceBatches
    from engine.data.loaders import MicroBatchSampler, TrainLoader
    from engine.devices.peak_memory import forget_peak, take_peak_gb

    task, device = trainer.task, trainer.ranks.device
    trainer.layout = BatchLayout(task.train_order.num_samples, size, drop_last=task.drop_last)
    sampler = MicroBatchSampler(task.train_order, trainer.layout, stop_step=STEPS)
    forget_peak(device)
    try:
        batches = DeviceBatches(TrainLoader(task.train_data, sampler, task.workers), device)
        for _ in range(STEPS):
            trainer.train_step(batches)
        trainer.settle()
    except torch.OutOfMemoryError:
        return None
    finally:
        trainer.learner.optimizer.zero_grad(set_to_none=True)
        batches = None  # type: ignore[assignment]
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return take_peak_gb(device) * 1e9
