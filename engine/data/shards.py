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
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.data.index import THREADS, Listed
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
ANEW = "pack it anew, or remove its index if others have made it"
NO_PIECES = np.zeros(0, np.int64)


class _Opened:
    """A file that is closed when the last one has read it."""

    def __init__(self, file: Path, size: int, copy_of: Path | None = None) -> None:
        """
        Args:
            file: Is opened.
            size: Its bytes, if it is the one that the index is of.
            copy_of: What it was copied from, if it was.
        """
        self.file, self.copy_of = file, copy_of
        self.number = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        self.state = os.fstat(self.number)
        if self.state.st_size != size:
            raise UserError(f"{file}: has {self.state.st_size} bytes, where its index was made of {size}; {ANEW}")

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.number)

    def read(self, offset: int, size: int) -> bytes:
        """Returns so many bytes. Raises OSError if they cannot be read, or the file ends before them."""
        content = os.pread(self.number, size, offset)
        if len(content) != size:
            raise OSError(0, f"the tar file ends before its images do; {ANEW}")
        return content


def content_digest(content: bytes) -> int:
    """Returns what an index of packed images says of the content of each."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big", signed=True)


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
    times: list[int] | None = None
    """Nanoseconds at which the tar files were last changed, where that is all that tells them from others."""

    def __post_init__(self) -> None:
        self._open: dict[int, _Opened] = {}
        self._bad_copies: set[int] = set()

    @classmethod
    def of(cls, known: Listed) -> Shards:
        """Returns what an index of shards says."""
        facts = known.facts
        if (folder := facts.get("folder")) is None:
            assert known.file is not None
            folder = known.file.parent  # wherever that lies now
        pieces = known.arrays["pieces"]
        return cls(Path(folder), facts["shards"], facts["sizes"], facts["version"], pieces, facts.get("times"))

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
        """Returns what a message calls a file that was called ``name``: in the copy, if that is what was read."""
        shard = self.piece(index)[0]
        opened = self._open.get(shard)
        source = self.folder / self.names[shard]
        if opened is None or opened.copy_of is None:
            return Path(f"{source}:{name}")
        return Path(f"{opened.file}:{name} (data.stage's copy of {source})")

    def read(self, piece: Piece) -> bytes:
        """Returns what is in a file; where a copy does not give it, what its source has.

        Raises:
            UnreadableError: it cannot be read.
            UserError: the tar file is another one than the index is of.
        """
        shard, offset, size = piece
        file = self.folder / f"{self.names[shard]}, byte {offset}"
        while True:
            opened = self._open.get(shard)
            try:
                opened = opened or self._open.setdefault(shard, self._opened(shard))
                return opened.read(offset, size)
            except OSError as error:
                self._open.pop(shard, None)  # what has gone stale is opened anew
                if opened is not None and opened.copy_of is not None:
                    self._give_up(shard, opened.file, error)
                    continue
                if error.errno in TRANSIENT:
                    raise storage_error(file, error) from None
                raise UnreadableError(f"{file}: cannot be read: {error.strerror}", str(file)) from None

    def _opened(self, shard: int) -> _Opened:
        name, size, own = self.names[shard], self.sizes[shard], self.on_node
        source = self.folder / name
        if own is not None and shard not in self._bad_copies:
            try:
                return self._recognized(shard, _Opened(own / name, size, source))
            except FileNotFoundError:
                pass  # it was not copied
            except (OSError, UserError) as error:
                self._give_up(shard, own / name, error)
        return self._recognized(shard, _Opened(source, size))

    def _give_up(self, shard: int, copy: Path, fault: OSError | UserError) -> None:
        """Removes a copy, so that nobody else reads it, and has this process read its source from now on."""
        self._bad_copies.add(shard)
        try:
            copy.unlink(missing_ok=True)
            done = "it is removed"
        except OSError as error:
            done = f"remove it, which was refused ({error.strerror})"
        text = "data.stage: the copy %s cannot be used (%s): %s; %s is read instead, which is slower, and "
        text += "the next run copies it anew"
        why = str(fault.strerror if isinstance(fault, OSError) else fault)
        reason = why.removeprefix(f"{copy}: ").partition(";")[0]
        log.warning(text, copy, reason, done, self.folder / self.names[shard])

    def _recognized(self, shard: int, opened: _Opened) -> _Opened:
        """Returns a tar file that was opened.

        Raises:
            UserError: it was changed since, or its first image is not the one that was packed.
        """
        if opened.copy_of is None and self.times is not None and opened.state.st_mtime_ns != self.times[shard]:
            raise UserError(f"{opened.file}: has changed since its index was made; start again")
        first = bisect_left(self.pieces[:, 0], shard)  # they lie in order, mostly
        if (digests := self.digests) is None or first == len(digests) or self.piece(first)[0] != shard:
            return opened
        with contextlib.suppress(OSError):  # whoever wants this image is told
            if content_digest(opened.read(*self.piece(first)[1:])) != digests[first]:
                text = "is another tar file than its index was made of, or was changed: its images are not those that "
                raise UserError(f"{opened.file}: {text}were packed; pack the data anew, or copy them whole")
        return opened

    def check(self) -> None:
        """Raises a UserError if a tar file is missing, or another one than the index is of."""

        def look(shard: int) -> None:
            name, size = self.names[shard], self.sizes[shard]
            file = self.folder / name
            try:
                self._recognized(shard, _Opened(file, size))
            except OSError as error:
                if error.errno in TRANSIENT:
                    raise storage_error(file, error) from None
                raise UserError(f"data.root: {file}: {error.strerror}; copy all shards that the index names") from None

        with ThreadPoolExecutor(THREADS) as pool:
            deque(pool.map(look, range(len(self.names))), 0)

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
            text = "data.stage: %d of %d tar files were copied to %s; %s: %s; those that were not copied are read from "
            text += "%s, which is slower"
            log.warning(text, copied, len(self.names), own, name, error.strerror or error, self.folder)


def _copy(source: Path, target: Path, size: int) -> None:
    """Makes a verified copy, whole or not at all; none where others would then have hardly any room."""
    disk = shutil.disk_usage(target.parent)
    if disk.free - size < SPARED * disk.total:
        kept = f"{SPARED * disk.total / 1e9:.3g} GB ({SPARED:.0%} of it) are left to others"
        raise OSError(
            errno.ENOSPC,
            f"its {size / 1e9:.3g} GB do not fit: {disk.free / 1e9:.3g} GB of the disk are free, of which {kept}",
        )
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
