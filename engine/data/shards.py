"""Images packed into tar files: where each lies, how it is read, and how the files are copied to a node's own disk."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.data.index import Listed
from engine.data.unreadable import TRANSIENT, storage_error
from engine.errors import UserError

if TYPE_CHECKING:
    from engine.distributed.ranks import Ranks

log = logging.getLogger(__name__)

Piece = tuple[int, int, int]
"""Number of a shard, and offset and size of a file in it."""
NODE_FOLDERS = ("SLURM_TMPDIR", "TMPDIR")
"""Variables that name a folder on the node's own disk, the better one first."""


@dataclass
class Shards:
    """N files in the tar files of a folder, each of which a process opens once."""

    folder: Path
    names: list[str]
    """Of the tar files, below the folder."""
    sizes: list[int]
    """Their bytes."""
    pieces: NDArray[np.int64]
    """(N, 3) a :data:`Piece` each."""

    def __post_init__(self) -> None:
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, known: Listed) -> Shards:
        """Returns what an index of shards says."""
        facts = known.facts
        if (folder := facts.get("folder")) is None:
            assert known.file is not None
            folder = known.file.parent  # wherever that lies now
        return cls(Path(folder), facts["shards"], facts["sizes"], known.arrays["pieces"])

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "names": self.names, "sizes": self.sizes, "pieces": self.pieces}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __del__(self) -> None:
        for descriptor in self._open.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def piece(self, index: int) -> Piece:
        """Returns where a file lies."""
        shard, offset, size = self.pieces[index].tolist()
        return shard, offset, size

    def take(self, indices: NDArray[np.int64]) -> Shards:
        """Returns some of the files."""
        return Shards(self.folder, self.names, self.sizes, self.pieces[indices])

    def path(self, index: int, name: str) -> Path:
        """Returns what a message calls a file that was called ``name``."""
        return self.folder / f"{self.names[self.piece(index)[0]]}:{name}"

    def read(self, piece: Piece) -> bytes:
        """Returns what is in a file.

        Raises:
            UserError: the tar file cannot be read, or is another one than the index is of.
        """
        shard, offset, size = piece
        try:
            content = os.pread(self._descriptor(shard), size, offset)
        except OSError as error:
            with self._lock, contextlib.suppress(OSError, KeyError):
                os.close(self._open.pop(shard))  # what has gone stale is opened anew
            file = self.folder / self.names[shard]
            if error.errno in TRANSIENT:
                raise storage_error(file, error) from None
            raise UserError(f"{file}: cannot be read: {error.strerror}") from None
        if len(content) != size:
            raise UserError(f"{self.folder / self.names[shard]}: ends before its files do; pack it anew")
        return content

    def _descriptor(self, shard: int) -> int:
        with self._lock:
            if shard not in self._open:
                self._open[shard] = self._opened(shard)
            return self._open[shard]

    def _opened(self, shard: int) -> int:
        name, own = self.names[shard], self.on_node
        if own is not None:
            with contextlib.suppress(OSError):
                return self._fitting(own / name, shard)
        return self._fitting(self.folder / name, shard)

    def _fitting(self, file: Path, shard: int) -> int:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        if (size := os.fstat(descriptor).st_size) != self.sizes[shard]:
            os.close(descriptor)
            raise UserError(f"{file}: has {size} bytes, where its index was made of {self.sizes[shard]}; pack it anew")
        return descriptor

    def check(self) -> None:
        """Raises a UserError if a tar file is missing, or another one than the index is of."""
        for name, size in zip(self.names, self.sizes, strict=True):
            file = self.folder / name
            try:
                found = file.stat().st_size
            except OSError as error:
                raise UserError(f"data.root: {file}: {error.strerror}; copy all shards that the index names") from None
            if found != size:
                raise UserError(f"{file}: has {found} bytes, where its index was made of {size}; pack it anew")

    @property
    def on_node(self) -> Path | None:
        """Returns the folder on the node's own disk for copies of these tar files; None if no variable names one."""
        place = next((os.environ[name] for name in NODE_FOLDERS if os.environ.get(name)), None)
        if place is None:
            return None
        what = repr((os.fspath(self.folder), self.names, self.sizes))
        return Path(place, "swin-hpc", hashlib.sha256(what.encode()).hexdigest()[:16])

    def stage(self) -> None:
        """Copies the tar files to the node's own disk, as many as there is room for: readers there look for them first.

        For one process of a node while the others wait.
        """
        own = self.on_node
        if own is None:
            log.warning("data.stage: neither %s is set: shards are read where they are", " nor ".join(NODE_FOLDERS))
            return
        copied = 0
        try:
            own.mkdir(parents=True, exist_ok=True)
            for name, size in zip(self.names, self.sizes, strict=True):
                if not (own / name).exists() or (own / name).stat().st_size != size:
                    _copy(self.folder / name, own / name)
                copied += 1
        except OSError as error:
            text = "data.stage: %d of %d shards were copied to %s: %s; the others are read where they are"
            log.warning(text, copied, len(self.names), own, error.strerror or error)


def _copy(source: Path, target: Path) -> None:
    """Makes a verified copy, whole or not at all."""
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, aside)
        if not filecmp.cmp(source, aside, shallow=False):
            raise OSError(f"the copy of {source} differs from it")
        os.replace(aside, target)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def stage_on_nodes(opened: Iterable[Shards], ranks: Ranks) -> None:
    """Copies shards to each node's own disk, by one of its ranks, while the others wait."""
    if ranks.layout.local_rank == 0:
        for shards in opened:
            shards.stage()
    ranks.barrier()
