"""Worker processes that read batches: how many, how they start and end, and how their errors arrive."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from engine.data.batch_plan import Draw
from engine.distributed.layout import Layout, own_cores
from engine.distributed.transfer import share, shared
from engine.errors import UserError
from engine.process.signals import STOP_SIGNALS, end_with_parent


class SampleReader(Protocol):
    """A data set: gives the sample of a draw, augmented. Equal draws give equal samples."""

    def __getitem__(self, draw: Draw, /) -> Any: ...


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a rank's loader workers; none of them changes what is read."""

    workers: int = 0
    """Worker processes; 0: the main process reads."""
    prefetch: int = 2
    """Batches that each worker keeps ready."""
    pin_memory: bool = False
    """Put batches into page-locked memory, from where copies to a CUDA device are asynchronous."""
    multiprocessing_context: str | None = None
    """fork, spawn or forkserver; None: the platform's own."""
    collate: Callable[[list[Any]], Any] = default_collate
    """Makes a batch of a list of samples."""


def resolve_workers(workers: int | str, layout: Layout, environment: Mapping[str, str] = os.environ) -> int:
    """Returns one rank's worker processes: a number as it is, for ``auto`` its cores less one, at least one."""
    return max(own_cores(layout, environment) - 1, 1) if workers == "auto" else int(workers)


def read_batches(
    reader: SampleReader, batches: Iterable[list[Draw]], settings: WorkerSettings
) -> Generator[Any, None, None]:
    """Yields the collated samples of each list of draws, in order.

    Leaving the iteration in any way ends the workers. Nothing is drawn from torch's global generator.

    Raises:
        UserError: as the reader raised it, also in a worker.
    """
    parallel = settings.workers > 0
    loader: DataLoader[Any] = DataLoader(
        _BatchReader(reader, settings.collate),
        batch_size=None,  # the draws come in batches already
        sampler=batches,
        collate_fn=_unchanged,
        pin_memory=settings.pin_memory,
        generator=torch.Generator(),
        num_workers=settings.workers,
        prefetch_factor=settings.prefetch if parallel else None,
        multiprocessing_context=settings.multiprocessing_context if parallel else None,
        worker_init_fn=_start_worker,
    )
    with _blocked(STOP_SIGNALS):  # a new worker is not to die of one before it has learned to ignore it
        iterator = iter(loader)
    end = partial(_end_workers, iterator)
    atexit.register(end)
    try:
        for batch in iterator:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    finally:
        end()
        atexit.unregister(end)


class _BatchReader(Dataset[Any]):
    """Reads whole batches. A user's error takes the place of its batch: DataLoader would wrap one that is raised."""

    def __init__(self, reader: SampleReader, collate: Callable[[list[Any]], Any]) -> None:
        self._reader = reader
        self._collate = collate
        self._shared: tuple[torch.Tensor, list[int]] | None = None

    def __reduce__(self) -> Any:
        """Lets workers that are no forks map one copy of the reader's arrays, whatever the number of workers."""
        if self._shared is None:
            self._shared = share(self._reader)
        return _from_shared, (*self._shared, self._collate)

    def __getitem__(self, draws: list[Draw]) -> Any:
        try:
            return self._collate([self._reader[draw] for draw in draws])
        except UserError as error:
            return UserError(str(error))


def _from_shared(memory: torch.Tensor, sizes: list[int], collate: Callable[[list[Any]], Any]) -> _BatchReader:
    return _BatchReader(shared(memory, sizes), collate)


@contextlib.contextmanager
def _blocked(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Keeps signals pending, in this thread and, for good, in processes that are started meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _unchanged(batch: Any) -> Any:
    return batch


def _start_worker(worker_id: int) -> None:
    """Ignores stop signals, which reach every process of a job: the main process needs its workers till it ends."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()  # not some seconds later


def _end_workers(iterator: Any) -> None:
    """Ends a DataLoader iterator's workers, which has no public way.

    Also at exit, before multiprocessing waits for them: they ignore the SIGTERM that it sends.
    """
    if workers := getattr(iterator, "_workers", []):
        iterator._shutdown_workers()
    for worker in workers:
        if worker.is_alive():
            worker.kill()
