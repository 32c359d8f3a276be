"""Images packed into tar files: where each lies, how it is read, and how the files are copied to a node's own disk."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.data.index import Listed
from engine.data.unreadable import TRANSIENT, UnreadableError, storage_error
from engine.errors import UserError

if TYPE_CHECKING:
    from engine.distributed.ranks import Ranks

log = logging.getLogger(__name__)

Piece = tuple[int, int, int]
"""Number of a shard, and offset and size of a file in it."""
NODE_FOLDERS = ("SLURM_TMPDIR", "TMPDIR")
"""Variables that name a folder on the node's own disk, the better one first."""
SPARED = 0.05
"""Part of that disk that is left to others."""
NO_PIECES = np.zeros(0, np.int64)


class _Opened:
    """A file that is closed when the last one has read it."""

    def __init__(self, file: Path, size: int) -> None:
        self.number = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        if (found := os.fstat(self.number).st_size) != size:
            raise UserError(_changed(file, found, size))

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.number)


def _changed(file: Path, found: int, size: int) -> str:
    return f"{file}: has {found} bytes, where its index was made of {size}; pack it anew"


@dataclass
class Shards:
    """N files in the tar files of a folder, each of which a process opens once."""

    folder: Path
    names: list[str]
    """Of the tar files, below the folder."""
    sizes: list[int]
    """Their bytes."""
    version: str
    """What no tar files of another content have."""
    pieces: NDArray[np.int64]
    """(N, 3) a :data:`Piece` each; or (N, 4), with a digest of what is in it."""

    def __post_init__(self) -> None:
        self._open: dict[int, _Opened] = {}

    @classmethod
    def of(cls, known: Listed) -> Shards:
        """Returns what an index of shards says."""
        facts = known.facts
        if (folder := facts.get("folder")) is None:
            assert known.file is not None
            folder = known.file.parent  # wherever that lies now
        return cls(Path(folder), facts["shards"], facts["sizes"], facts["version"], known.arrays["pieces"])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    def piece(self, index: int) -> Piece:
        """Returns where a file lies."""
        shard, offset, size = self.pieces[index, :3].tolist()
        return shard, offset, size

    @property
    def digests(self) -> NDArray[np.int64] | None:
        """Returns digests of what is in the files, (N,), where they were made when these were packed."""
        return self.pieces[:, 3] if self.pieces.shape[1] == 4 else None

    def take(self, indices: NDArray[np.int64]) -> Shards:
        """Returns some of the files."""
        return replace(self, pieces=self.pieces[indices])

    def path(self, index: int, name: str) -> Path:
        """Returns what a message calls a file that was called ``name``."""
        return self.folder / f"{self.names[self.piece(index)[0]]}:{name}"

    def read(self, piece: Piece) -> bytes:
        """Returns what is in a file.

        Raises:
            UnreadableError: it cannot be read.
            UserError: the tar file is another one than the index is of.
        """
        shard, offset, size = piece
        file = self.folder / f"{self.names[shard]}, byte {offset}"
        try:
            opened = self._open.get(shard) or self._open.setdefault(shard, self._opened(shard))
            content = os.pread(opened.number, size, offset)
        except OSError as error:
            self._open.pop(shard, None)  # what has gone stale is opened anew
            if error.errno in TRANSIENT:
                raise storage_error(file, error) from None
            raise UnreadableError(f"{file}: cannot be read: {error.strerror}", str(file)) from None
        if len(content) != size:
            raise UnreadableError(f"{file}: the tar file ends before its images do; pack it anew", str(file))
        return content

    def _opened(self, shard: int) -> _Opened:
        name, size, own = self.names[shard], self.sizes[shard], self.on_node
        if own is not None:
            with contextlib.suppress(OSError, UserError):
                return _Opened(own / name, size)
        return _Opened(self.folder / name, size)

    def check(self) -> None:
        """Raises a UserError if a tar file is missing, or another one than the index is of."""
        for name, size in zip(self.names, self.sizes, strict=True):
            file = self.folder / name
            try:
                found = file.stat().st_size
            except OSError as error:
                raise UserError(f"data.root: {file}: {error.strerror}; copy all shards that the index names") from None
            if found != size:
                raise UserError(_changed(file, found, size))

    @property
    def on_node(self) -> Path | None:
        """Returns the folder on the node's own disk for copies of these tar files; None if no variable names one."""
        place = next((os.environ[name] for name in NODE_FOLDERS if os.environ.get(name)), None)
        if place is None:
            return None
        what = repr((os.fspath(self.folder), self.names, self.sizes, self.version))
        return Path(place, f"swin-hpc-{os.getuid()}", hashlib.sha256(what.encode()).hexdigest()[:16])

    def stage(self, copied_one: Callable[[], None] = lambda: None) -> None:
        """Copies the tar files to the node's own disk, as many as there is room for: readers there look for them first.

        For one process of a node while the others wait. Calls ``copied_one`` after each.
        """
        own = self.on_node
        if own is None:
            log.warning("data.stage: neither %s is set: shards are read where they are", " nor ".join(NODE_FOLDERS))
            return
        copied = 0
        try:
            for name, size in zip(self.names, self.sizes, strict=True):
                (own / name).parent.mkdir(parents=True, exist_ok=True)
                if not (own / name).exists() or (own / name).stat().st_size != size:
                    _copy(self.folder / name, own / name, size)
                copied += 1
                copied_one()
        except OSError as error:
            text = "data.stage: %d of %d shards were copied to %s: %s; the others are read where they are"
            log.warning(text, copied, len(self.names), own, error.strerror or error)


def _copy(source: Path, target: Path, size: int) -> None:
    """Makes a verified copy, whole or not at all; none where others would then have hardly any room."""
    disk = shutil.disk_usage(target.parent)
    if disk.free - size < SPARED * disk.total:
        raise OSError(errno.ENOSPC, f"{disk.free / 1e9:.3g} GB are free, of which {SPARED:.0%} of the disk stay so")
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
    try:
        shutil.copyfile(source, aside)
        if not filecmp.cmp(source, aside, shallow=False):
            raise OSError(f"the copy of {source} differs from it")
        os.replace(aside, target)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def stage_on_nodes(opened: Callable[[], Iterable[Shards]], ranks: Ranks) -> None:
    """Copies shards to each node's own disk, by one of its ranks, while the others wait.

    Raises:
        UserError: on every rank, if rank 0 cannot open them.
    """
    for shards in ranks.from_main(lambda: [each.take(NO_PIECES) for each in opened()]):
        if ranks.layout.local_rank == 0:
            shards.stage(ranks.heartbeat.tick)
    ranks.barrier()
