"""Which samples make which batch: pure arithmetic over the global batch, the same for any number of ranks.

Positions number the samples of one epoch in the order in which they are used. Optimizer step s of an epoch takes the
positions [s*G, (s+1)*G), where G is the global batch size. With R ranks and A accumulation steps each step has A*R
slots of m = G / (A*R) positions: slot a*R + r belongs to micro-step a of rank r.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import UserError
from engine.seed import generator


@dataclass(frozen=True, slots=True)
class Draw:
    """One use of one sample. What is random about it follows from ``epoch`` and ``position``."""

    index: int
    """The sample, in [0, number of samples)."""
    epoch: int
    position: int
    """Place in the epoch's global order."""


class Order(Protocol):
    """An order of an epoch's samples."""

    @property
    def num_samples(self) -> int:
        """Returns the number of positions in an epoch."""

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        """Returns the sample at each position of ``epoch``: (num_samples,). Depends on nothing but ``epoch``."""


@dataclass(frozen=True)
class NaturalOrder:
    """Every sample once an epoch, shuffled anew for each."""

    num_samples: int
    seed: int

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        return generator(self.seed, "order", epoch).permutation(self.num_samples)


@dataclass(frozen=True)
class Slot:
    """One rank's part of one micro-step."""

    step: int
    """Optimizer step, counted from the start of the run."""
    epoch: int
    step_in_epoch: int
    micro_step: int
    positions: range
    """Positions in the epoch; those of the step's first slot where a short last step leaves nothing for this one."""
    num_samples: int
    """Samples that count: ``len(positions)``, or 0 where the positions only keep the rank busy."""
    step_samples: int
    """Samples of the whole optimizer step, over all ranks and micro-steps."""

    @property
    def weight(self) -> float:
        """Returns the share of this slot's mean loss in the step's: ``num_samples / step_samples``."""
        return self.num_samples / self.step_samples


@dataclass(frozen=True)
class BatchLayout:
    """A cut of an epoch into steps, and of a step into slots.

    Raises:
        UserError: there are no samples, or fewer than one global batch and the short rest is dropped.
    """

    num_samples: int
    global_batch_size: int
    accumulation: int = 1
    world_size: int = 1
    drop_last: bool = True

    def __post_init__(self) -> None:
        assert self.global_batch_size % (self.accumulation * self.world_size) == 0, "see resolve_accumulation"
        if self.num_samples < 1:
            raise UserError("data: the training set has no samples")
        if self.steps_per_epoch < 1:
            raise UserError(
                f"training.global_batch_size: {self.global_batch_size} is more than the {self.num_samples} training "
                f"samples, and data.drop_last drops what does not fill a batch; choose at most {self.num_samples}, "
                "or data.drop_last=false"
            )

    @property
    def slot_size(self) -> int:
        """Returns the samples in a full micro-batch of one rank."""
        return self.global_batch_size // (self.accumulation * self.world_size)

    @property
    def steps_per_epoch(self) -> int:
        """Returns the optimizer steps of an epoch; a short last one counts unless it is dropped."""
        steps, rest = divmod(self.num_samples, self.global_batch_size)
        return steps + (rest > 0 and not self.drop_last)

    @property
    def smallest_slot(self) -> int:
        """Returns the fewest samples, above none, that a rank's micro-batch has anywhere in an epoch."""
        rest = 0 if self.drop_last else self.num_samples % self.global_batch_size
        return rest % self.slot_size or self.slot_size

    def slot(self, step: int, micro_step: int, rank: int) -> Slot:
        """Returns the work of ``rank`` in ``micro_step`` of optimizer step ``step``, counted from the start."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        first = step_in_epoch * self.global_batch_size
        end = min(first + self.global_batch_size, self.num_samples)
        start = first + (micro_step * self.world_size + rank) * self.slot_size
        own = range(start, min(start + self.slot_size, end))
        filler = range(first, min(first + self.slot_size, end))
        return Slot(step, epoch, step_in_epoch, micro_step, own or filler, len(own), end - first)


def resolve_accumulation(
    global_batch_size: int,
    micro_batch_size: int | None,
    accumulation: int | str,
    world_size: int,
    multiple_of: int = 1,
) -> tuple[int, int]:
    """Returns micro-steps of an optimizer step and samples of a rank in each: ``(accumulation, slot size)``.

    Args:
        micro_batch_size: most samples in a slot; None for no bound.
        accumulation: a number, or ``auto`` for the smallest that fits.
        multiple_of: what a slot's size has to be divisible by (2 where neighbours are mixed).

    Raises:
        UserError: the batch cannot be divided so; the text names the nearest that can.
    """
    if accumulation == "auto":
        bound = micro_batch_size or global_batch_size
        per_rank, rest = divmod(global_batch_size, world_size)
        if multiple_of > bound:
            raise UserError(f"training.micro_batch_size: {bound} is too small; at least {multiple_of} is needed")
        if rest or per_rank % multiple_of or not per_rank:
            raise _indivisible(global_batch_size, world_size, 1, multiple_of)
        size = next(m for m in range(min(bound, per_rank), 0, -1) if not (per_rank % m or m % multiple_of))
        return per_rank // size, size
    assert isinstance(accumulation, int)
    slot_size, rest = divmod(global_batch_size, world_size * accumulation)
    if rest or slot_size % multiple_of:
        raise _indivisible(global_batch_size, world_size, accumulation, multiple_of)
    if micro_batch_size is not None and slot_size > micro_batch_size:
        raise UserError(
            f"training.accumulation: {accumulation} leaves {slot_size} samples to a forward pass, more than "
            f"training.micro_batch_size ({micro_batch_size}); use accumulation: auto, or at least "
            f"{-(-global_batch_size // (world_size * micro_batch_size))}"
        )
    return accumulation, slot_size


def _indivisible(global_batch_size: int, world_size: int, accumulation: int, multiple_of: int) -> UserError:
    unit = world_size * accumulation * multiple_of
    below = global_batch_size // unit * unit
    nearest = f"{below} or {below + unit}" if below else str(unit)
    parts = [f"{world_size} ranks"]
    if accumulation > 1:
        parts.append(f"{accumulation} accumulation steps")
    if multiple_of > 1:
        parts.append(f"micro-batches of a multiple of {multiple_of} samples")
    return UserError(
        f"training.global_batch_size: {global_batch_size} cannot be divided into {' x '.join(parts)}; "
        f"the nearest that can: {nearest}" + (", or use training.accumulation=auto" if accumulation > 1 else "")
    )
