"""What the ranks of a run tell each other: the few collectives that the suite uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from signal import Signals
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from engine.distributed.heartbeat import Heartbeat
from engine.distributed.layout import Layout
from engine.distributed.transfer import Bytes, broadcast, pack, unpack
from engine.errors import UserError
from engine.process.signals import StopRequest

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place, its device, and the few collectives that the suite uses."""

    layout: Layout
    device: torch.device
    backend: str | None = None
    """nccl or gloo; None in a single process."""
    heartbeat: Heartbeat = field(default_factory=Heartbeat, compare=False)
    """Where this process is, for the watchdog."""
    stop: StopRequest = field(default_factory=StopRequest, compare=False)
    """Whether this process was asked to stop; the ranks have to agree on when they do."""

    @property
    def rank(self) -> int:
        """Returns the number of this process, from 0."""
        return self.layout.rank

    @property
    def world_size(self) -> int:
        """Returns the number of processes, over all nodes."""
        return self.layout.world_size

    @property
    def is_main(self) -> bool:
        """Returns whether this is rank 0, which writes the run's folder."""
        return self.layout.rank == 0

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sums ``tensor`` over the ranks, in place on each of them; returns it."""
        self.heartbeat.move()
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns the rows of all ranks, (n_r, ...) from each, rank after rank, on every rank. Counts may differ."""
        if self.world_size == 1:
            return rows
        counts = self.gather_counts(rows.shape[0])
        padded = rows.new_zeros((max(counts), *rows.shape[1:]), device=self.device)
        padded[: rows.shape[0]] = rows.to(self.device)
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(rows.device)

    def gather_counts(self, count: int) -> list[int]:
        """Returns one whole number from each rank."""
        counts = torch.zeros(self.world_size, dtype=torch.int64, device=self.device)
        counts[self.rank] = count
        return self.sum_(counts).tolist()

    def gather(self, value: T) -> list[T]:
        """Returns what each rank gives, on every rank; it has to be something that can be pickled."""
        if self.world_size == 1:
            return [value]
        self.heartbeat.move()
        found: list[T | None] = [None] * self.world_size
        dist.all_gather_object(found, value)
        return cast(list[T], found)

    def from_main(self, make: Callable[[], T]) -> T:
        """Returns what ``make`` returns on rank 0, on every rank, so that only one looks, reads or decides.

        Arrays and tensors arrive bit by bit, at the cost of their bytes, see :func:`engine.distributed.transfer.pack`.

        Raises:
            UserError: ``make`` has raised one on rank 0.
            RuntimeError: it has raised another error there, which rank 0 itself raises as it is.
        """
        if self.world_size == 1:
            return make()
        made, failure, parts = list[T](), None, list[Bytes]()
        if self.is_main:
            try:
                made.append(make())
                parts = pack((None, made[0]))
            except Exception as error:
                failure = error
                parts = pack(((isinstance(error, UserError), str(error)), None))
        self.heartbeat.move()
        sent = broadcast(parts if self.is_main else None, self.device, self.heartbeat.tick)
        if failure is not None:
            raise failure
        if self.is_main:
            return made[0]
        fault, value = unpack(sent)
        if fault is not None:
            by_user, text = fault
            raise UserError(text) if by_user else RuntimeError(f"rank 0 failed: {text}")
        return cast(T, value)

    def cause_of_stop(self) -> Signals:
        """Returns the signal that has stopped the run, on every rank: those that it has not reached hear of it now.

        To be called once the ranks have agreed to stop, which they do before the watchdog may have told each of them.
        """
        self.stop.hear(Signals(max(self.gather_counts(self.stop.signal or 0))).name)
        return cast(Signals, self.stop.signal)

    def barrier(self) -> None:
        """Waits until every rank is here."""
        if self.world_size > 1:
            self.sum_(torch.zeros(1, device=self.device)).item()

    def close(self) -> None:
        """Leaves the process group."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()
