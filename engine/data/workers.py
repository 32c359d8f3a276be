"""Worker processes that read batches: how many, how they start and end, and how their errors arrive."""

from __future__ import annotations

import atexit
import contextlib
import gc
import itertools
import logging
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from engine.data.batch_plan import Draw
from engine.data.lost_workers import (
    READY_BYTES,
    RESTARTS,
    Lost,
    Unread,
    WorkerLostError,
    fitting_prefetch,
    loss_of,
    told_of_cores,
    told_of_loss,
)
from engine.data.read_meter import ReadMeter
from engine.data.unreadable import Patience, Troubles
from engine.distributed.layout import Layout, own_cores
from engine.distributed.transfer import share, shared
from engine.errors import UserError
from engine.process.batch_memory import BatchMemory, pack, unpack
from engine.process.signals import STOP_SIGNALS, end_with_parent

log = logging.getLogger(__name__)

IN_USE = 3
"""Batches of a worker besides those that are kept ready: one in the making, one on the device, and the next."""
SMALL_BYTES = 2**16
"""Of a batch's labels and the like, at least."""


class SampleReader(Protocol):
    """A data set: gives the sample of a draw, augmented. Equal draws give equal samples.

    It may have ``announce(draws, threads)``, which begins to read the files of draws that come next, and
    ``wait_seconds``, the time in which this process has waited for files.
    """

    def __getitem__(self, draw: Draw, /) -> Any: ...


class ReadsImages:
    """Reads samples, each of an image whose number its draw says; see :class:`SampleReader`."""

    images: Any
    """They know of announcements themselves."""

    @property
    def wait_seconds(self) -> float:
        """Returns the time in which this process has waited for files."""
        waited: float = self.images.wait_seconds
        return waited

    def announce(self, draws: Sequence[Draw], threads: int) -> None:
        """Begins to read the files of draws that come next."""
        self.images.announce((draw.index for draw in draws), threads)


def stacked(samples: Sequence[Any]) -> Any:
    """Makes a batch of samples: tensors of tensors and of numbers, lists of texts, and the like of dicts and tuples.

    As torch's ``default_collate``, but never in shared memory: a batch goes there as a whole.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        return {name: stacked([sample[name] for sample in samples]) for name in first}
    if isinstance(first, tuple):
        return [stacked(column) for column in zip(*samples, strict=True)]
    if isinstance(first, torch.Tensor):
        return torch.stack(list(samples))
    if isinstance(first, str):
        return list(samples)
    return torch.tensor(samples, dtype=torch.float64 if isinstance(first, float) else None)


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a rank's loader workers; none of them changes what is read."""

    workers: int = 0
    """Worker processes; 0: the main process reads."""
    prefetch: int = 2
    """Batches that each worker keeps ready."""
    sample_bytes: int = 0
    """What a sample takes in a batch, about; 0: nobody knows."""
    ready_bytes: int = READY_BYTES
    """Of all batches that are kept ready: of larger ones there are fewer than ``prefetch``."""
    pin_memory: bool = False
    """Put batches into page-locked memory, from where copies to a CUDA device are asynchronous."""
    multiprocessing_context: str | None = None
    """fork, spawn or forkserver; None: the platform's own."""
    collate: Callable[[list[Any]], Any] = stacked
    """Makes a batch of a list of samples."""
    read_threads: int = 0
    """Threads of each process that read files ahead; 0: files are read when they are used."""
    meter: ReadMeter | None = None
    """Counts what the processes spend their time on."""
    patience: Patience = field(default_factory=Patience)
    """What is done where an image cannot be read."""
    troubles: Troubles = field(default_factory=Troubles, compare=False)
    """Counts these."""

    @property
    def fill_own_memory(self) -> bool:
        """Returns whether workers fill memory of the main process: forks do, unless it is copied to page-locked one."""
        method = self.multiprocessing_context or multiprocessing.get_start_method()
        return method == "fork" and not self.pin_memory

    def sample(self, reader: SampleReader, draw: Draw) -> Any:
        """Returns a sample that this process reads by itself, or the one in its place, if its image may be skipped."""
        told = list[tuple[str, bool]]()
        sample = self.patience.sample(reader, draw, told)
        self.troubles.note(told)
        return sample


def resolve_workers(workers: int | str, layout: Layout, environment: Mapping[str, str] = os.environ) -> int:
    """Returns one rank's worker processes: a number as it is, for ``auto`` its cores less one, at least one."""
    return max(own_cores(layout, environment) - 1, 1) if workers == "auto" else int(workers)


def read_batches(
    reader: SampleReader, batches: Iterable[list[Draw]], settings: WorkerSettings
) -> Generator[Any, None, None]:
    """Yields the collated samples of each list of draws, in order.

    Leaving the iteration in any way ends the workers. Nothing is drawn from torch's global generator. Where a worker
    is killed, others begin where it was missed, up to :data:`RESTARTS` times; where shared memory is too small for
    batches, this process reads on by itself.

    Raises:
        UserError: as the reader raised it, also in a worker.
        WorkerLostError: workers were killed again and again.
    """
    later, workers = iter(batches), settings.workers
    first = list(itertools.islice(later, 1))
    if first and workers:
        size = len(first[0]) * settings.sample_bytes
        prefetch, text = fitting_prefetch(settings.prefetch, workers, size, settings.ready_bytes)
        settings = replace(settings, prefetch=prefetch)
        settings.troubles.tell_once(text)
        settings.troubles.tell_once(told_of_cores(workers, own_cores(Layout(), {})))
    coming = Unread(itertools.chain(first, later))
    for restarts in itertools.count():
        try:
            memory = _memory_for(len(first[0]), settings) if first and workers else None
            yield from _read(reader, coming, replace(settings, workers=workers), memory)
            return
        except Lost as lost:
            text, workers = told_of_loss(lost.by, workers)
            if restarts == RESTARTS:
                raise WorkerLostError(f"{text}; given up after {RESTARTS} new starts") from None
            log.warning("%s; %s", text, f"{workers} new ones go on" if workers else "the main process reads on")


def _read(
    reader: SampleReader, coming: Unread, settings: WorkerSettings, memory: BatchMemory | None
) -> Generator[Any, None, None]:
    parallel = settings.workers > 0
    with _blocked(STOP_SIGNALS), _same_handler(signal.SIGCHLD), _uncollected(), _more_than_cores():
        loader: DataLoader[Any] = DataLoader(
            _BatchReader(reader, settings.collate, settings.read_threads, settings.meter, settings.patience, memory),
            batch_size=None,  # the draws come in batches already
            sampler=_with_following(coming, max(1, settings.workers)),
            collate_fn=_unchanged,
            pin_memory=settings.pin_memory,
            generator=torch.Generator(),
            num_workers=settings.workers,
            prefetch_factor=settings.prefetch if parallel else None,
            multiprocessing_context=settings.multiprocessing_context if parallel else None,
            worker_init_fn=_start_worker,
        )
        iterator = iter(loader)  # a new worker is not to die of a stop signal before it has learned to ignore it
    end = partial(_end_workers, iterator)
    atexit.register(end)
    try:
        for read in iterator:
            if isinstance(read, UserError):
                raise read
            batch, told = read
            settings.troubles.note(told)
            coming.arrived()
            yield unpack(batch, memory) if parallel else batch
    except (RuntimeError, OSError, EOFError) as error:
        workers = getattr(iterator, "_workers", ())
        for worker in workers:
            worker.join(0.2)  # one whose batch breaks off may be about to end
        loss = loss_of(error, [worker.exitcode for worker in workers])
        if loss is None:
            raise
        raise Lost(loss) from error
    finally:
        end()
        atexit.unregister(end)


def _memory_for(samples: int, settings: WorkerSettings) -> BatchMemory | None:
    """Returns memory for batches of so many samples that workers can fill; None if they cannot, or nobody knows the
    size, or the system does not give so much. What a place has besides images is for labels and the like.
    """
    if not settings.fill_own_memory or not settings.sample_bytes:
        return None
    size = samples * settings.sample_bytes
    with contextlib.suppress(OSError):
        return BatchMemory(settings.workers, settings.prefetch + IN_USE, size + size // 4 + SMALL_BYTES)
    return None


Draws = tuple[list[Draw], list[Draw]]
"""Of a batch, and of the next one that the same worker will be given."""


def _with_following(batches: Iterable[list[Draw]], distance: int) -> Iterator[Draws]:
    """Yields batches, each with the one ``distance`` places on: DataLoader gives its workers batches in turn."""
    ahead: deque[list[Draw]] = deque()
    for batch in batches:
        ahead.append(batch)
        if len(ahead) > distance:
            yield ahead.popleft(), batch
    while ahead:
        yield ahead.popleft(), []


class _BatchReader(Dataset[Any]):
    """Reads whole batches. A user's error takes the place of its batch: DataLoader would wrap one that is raised."""

    def __init__(
        self,
        reader: SampleReader,
        collate: Callable[[list[Any]], Any],
        threads: int,
        meter: ReadMeter | None,
        patience: Patience,
        memory: BatchMemory | None = None,
    ) -> None:
        self._reader, self._collate, self._meter, self._patience = reader, collate, meter, patience
        self._memory = memory
        self._announce = getattr(reader, "announce", None) if threads else None
        self._threads, self._announced = threads, list[Draw]()
        self._shared: tuple[torch.Tensor, list[int]] | None = None

    def __reduce__(self) -> Any:
        """Lets workers that are no forks map one copy of the reader's arrays, whatever the number of workers."""
        if self._shared is None:
            self._shared = share(self._reader)
        return _from_shared, (*self._shared, self._collate, self._threads, self._meter, self._patience)

    def __getitem__(self, draws: Draws) -> Any:
        own, following = draws
        begin, told = time.perf_counter(), list[tuple[str, bool]]()
        try:
            if self._announce is not None:
                self._announce(following if self._announced == own else own + following, self._threads)
                self._announced = following
            batch = self._collate([self._patience.sample(self._reader, draw, told) for draw in own])
            if (worker := get_worker_info()) is not None:
                batch = pack(batch, self._memory, worker.id)
        except UserError as error:
            return UserError(str(error))
        if self._meter is not None:
            self._meter.add(time.perf_counter() - begin, getattr(self._reader, "wait_seconds", 0.0))
        return batch, told


def _from_shared(memory: torch.Tensor, sizes: list[int], *more: Any) -> _BatchReader:
    return _BatchReader(shared(memory, sizes), *more)


@contextlib.contextmanager
def _more_than_cores() -> Iterator[None]:
    """Keeps torch from warning of more workers than cores, twice, which :func:`told_of_cores` has said."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


@contextlib.contextmanager
def _blocked(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Keeps signals pending, in this thread and, for good, in processes that are started meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keeps forks from looking for garbage among what they share with this process: a mark on all of it is a copy."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _same_handler(number: signal.Signals) -> Iterator[None]:
    """Takes back a handler that is set meanwhile: torch's would raise for a worker that is gone in whatever is done."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if before is not None and signal.getsignal(number) is not before:
            signal.signal(number, before)


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
