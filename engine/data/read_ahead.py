"""Files read by threads before they are asked for, where reading one takes long: many are then opened at once."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engine.data.unreadable import TRANSIENT, storage_error

READ_THREADS = 16
"""Of each process that reads images, unless `data.read_threads` says otherwise."""
WORTH_A_THREAD = 1e-3
"""Seconds that reading a file has to take for a thread to do it: handing it over costs a tenth of that."""
LATELY = 8
"""Files over which that is averaged, about."""
AHEAD_BYTES = 128 * 2**20
"""Bytes that have been read and not yet asked for, from which on no more files are read ahead."""
LARGEST = 2**26
"""Bytes of a file that is read as a whole; what is larger, or never ends, is left to whoever needs parts of it."""


class FileReader:
    """Reads files, those that were announced by threads of the process that announces them.

    Used by one thread of each process. Copies in other processes, forks among them, know of no announcements.
    """

    def __init__(
        self,
        limit: int = AHEAD_BYTES,
        read: Callable[[Any], bytes | None] | None = None,
        worth: float = WORTH_A_THREAD,
    ) -> None:
        """
        Args:
            limit: Bytes that are read and not yet asked for.
            read: Returns what is in a file, by whatever names it; None: :func:`read_file`, by its path.
            worth: Seconds that a file has to take, lately, for threads to read those that were announced.
        """
        self._limit, self._worth = limit, worth
        self._content: Callable[[Any], bytes | None] = read or read_file
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 0
        self._coming: deque[Hashable] = deque()
        self._begun: dict[Hashable, deque[Future[bytes | None]]] = {}
        self._lock = threading.Lock()
        self._reading, self._held = 0, 0
        self._files, self._bytes = 0, 0  # so far
        self._seconds = 0.0  # a file, lately
        self.wait_seconds = 0.0
        """Time in which a file was waited for."""

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self._limit, "read": self._content, "worth": self._worth}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._limit, self._content, self._worth = state["limit"], state["read"], state["worth"]
        self._forget()

    def announce(self, paths: Iterable[Hashable], threads: int) -> None:
        """Says which files will be asked for next, in this order; as many as ``threads`` are read at a time."""
        if self._process != os.getpid():
            self._forget()
        if self._pool is None:
            self._pool, self._threads = ThreadPoolExecutor(threads, "read_ahead"), threads
        self._coming.extend(paths)
        self._go_on()

    def read(self, path: Hashable) -> bytes | None:
        """Returns what is in a file; None if it cannot be read, which whoever tries again is told the reason of."""
        if self._process != os.getpid():
            self._forget()
        begin = time.perf_counter()
        if futures := self._begun.get(path):
            future = futures.popleft()
            if not futures:
                del self._begun[path]
            content = future.result()
            with self._lock:
                self._held -= len(content or b"")
        else:
            with contextlib.suppress(ValueError):  # it is the next one, mostly, for which there was no room
                self._coming.remove(path)
            content = self._content(path)
            self._took(time.perf_counter() - begin)
        self.wait_seconds += time.perf_counter() - begin
        if self._coming:
            self._go_on()
        return content

    def _go_on(self) -> None:
        """Has as many files read as there are threads, unless so much lies ready that memory would run short."""
        assert self._pool is not None
        if self._seconds < self._worth:
            return
        while self._coming and self._reading < self._threads:
            usual = self._bytes // max(1, self._files)
            if self._held + self._reading * usual >= self._limit:
                return
            path = self._coming.popleft()
            with self._lock:
                self._reading += 1
            self._begun.setdefault(path, deque()).append(self._pool.submit(self._read, path))

    def _read(self, path: Hashable) -> bytes | None:
        content, begin = None, time.perf_counter()
        try:
            content = self._content(path)
            self._took(time.perf_counter() - begin)
            return content
        finally:
            with self._lock:
                self._reading -= 1
                self._held += len(content or b"")
                self._files += 1
                self._bytes += len(content or b"")

    def _took(self, seconds: float) -> None:
        self._seconds += (seconds - self._seconds) / LATELY


def read_file(path: Path) -> bytes | None:
    """Returns what is in a file; None if it cannot be read, is larger than :data:`LARGEST`, or is none: a pipe.

    Raises:
        StorageError: the storage fails, perhaps not for long.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for who writes
        try:
            return _content(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in TRANSIENT:
            raise storage_error(path, error) from None
        return None


def _content(descriptor: int) -> bytes | None:
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST:
        return None
    parts, size = list[bytes](), 0
    while part := os.read(descriptor, max(state.st_size, 4096) + 1):
        parts.append(part)
        size += len(part)
        if size > LARGEST:  # it grows, or is none on a disk
            return None
    return b"".join(parts)
