"""What a listing of data has found, kept beside them as memory-mapped arrays, so that the next start lists nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

log = logging.getLogger(__name__)

FOLDER = ".swin-hpc"
"""Beside the data, or in the user's cache."""
CACHE = "SWIN_HPC_CACHE"
"""Variable that names a folder to be used instead of that in the user's cache."""
VERSION = 1
"""Of what is kept: another one is listed anew."""
SETTLED_SECONDS = 2.0
"""What has changed so shortly before it was listed may change again without a later time."""
OTHER_CLOCKS = 120.0
"""The same where times are those of a clock that nobody can ask: of a server on which no file can be made."""
MOST_WATCHED = 200_000
"""Files and folders that are looked at before an index is used; of more, listing them is as fast."""
THREADS = 16
"""They wait for a network's file system, and compute next to nothing."""

State = tuple[int, ...] | None
"""Times of the last changes, and size; None: it is not there."""


@dataclass(frozen=True)
class Listed:
    """What was found."""

    arrays: dict[str, NDArray]
    facts: dict[str, Any]
    """Whatever else there is to know, as JSON has it."""
    watched: Sequence[str]
    """Paths of files and folders, whether they are there or not: while none changes, the same would be found."""
    keep: bool = True
    """Whether it is as it should be."""
    file: Path | None = None
    """From where all nodes can map it."""


class FromIndex(ABC):
    """What was listed. Other processes map its index themselves, if there is one that all nodes see."""

    index: Listed | None = None

    @classmethod
    @abstractmethod
    def of(cls, known: Listed) -> Any:
        """Makes one of what is known."""

    def __getstate__(self) -> dict[str, Any]:
        if self.index is None or self.index.file is None:
            return {**vars(self), "index": None}
        return {"file": self.index.file, "id": self.index.facts["id"]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if {*state} != {"file", "id"}:
            vars(self).update(state)
            return
        known = read_index(state["file"])
        if known is None or known.facts["id"] != state["id"]:
            raise RuntimeError(f"{state['file']} has changed since rank 0 has read it; start again")
        vars(self).update(vars(self.of(known)))


def listed(root: Path, key: Any, make: Callable[[], Listed]) -> Listed:
    """Returns what ``make`` lists, or has listed before, and logs what it logs, or has logged.

    The index lies in the folder :data:`FOLDER` of ``root``, else in the user's cache. It is used as long as nothing
    changes that was watched. Where it can neither be read nor written, all is listed at each start.

    Args:
        root: The folder of the data.
        key: All that decides what ``make`` finds besides, as JSON has it.
    """
    digest = hashlib.sha256(json.dumps([VERSION, os.fspath(root), key], sort_keys=True).encode()).hexdigest()
    files = [folder / f"{digest[:20]}.safetensors" for folder in index_folders(root)]
    for file in files:
        if (found := read_index(file)) is not None and found.facts["states"] == [*map(_state, _stats(found.watched))]:
            for name, level, text in found.facts["told"]:
                logging.getLogger(name).log(level, "%s", text)
            return replace(found, file=file if file is files[0] else None)
    begin = time.time_ns()
    with _noted() as told:
        made = make()
    if made.keep and len(made.watched) <= MOST_WATCHED:
        inside = os.path.normpath(root) in map(os.path.normpath, made.watched)  # a new folder would change it
        now = _stats(made.watched)
        if _settled(now, begin, [root, *index_folders(root)[1:]][inside:]):
            states = [*map(_state, now)]
            written = _write(files[inside:], made, {"root": os.fspath(root), "states": states, "told": told})
            if written is not None and (kept := read_index(written)) is not None:  # which takes none of our memory
                return replace(kept, file=None)  # other nodes may not see it yet
    return made


def _settled(found: Iterable[os.stat_result | None], begin: int, folders: Iterable[Path]) -> bool:
    """Returns whether what was ``found`` had not changed for a while at ``begin``, in nanoseconds of our clock.

    Times of files are those of a server, whose clock may be another: a file that is made in one of ``folders`` shows by
    how much, if it lies on the same file system.
    """
    newest = dict[int, int]()
    for each in found:
        if each is not None:
            newest[each.st_dev] = max(newest.get(each.st_dev, 0), each.st_mtime_ns, each.st_ctime_ns)
    ahead = dict[int, int]()
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if (device := folder.stat().st_dev) in newest and device not in ahead:
                with tempfile.TemporaryFile(dir=folder) as file:
                    ahead[device] = os.fstat(file.fileno()).st_mtime_ns - time.time_ns()
    return all(
        time_ns < begin + ahead.get(device, 0) - (SETTLED_SECONDS if device in ahead else OTHER_CLOCKS) * 1e9
        for device, time_ns in newest.items()
    )


def index_folders(root: Path) -> list[Path]:
    """Returns where indices of the data in ``root`` may lie, the better place first."""
    home = os.path.expanduser("~")  # which stays so where the system knows of none
    caches = os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home != "~" else "")
    own = os.environ.get(CACHE) or (caches and os.path.join(caches, FOLDER.lstrip(".")))
    return [root / FOLDER, *([Path(own)] if own else [])]


def forget(root: Path) -> None:
    """Removes the indices of the data in ``root``, so that they are listed anew."""
    for folder in index_folders(root):
        for file in folder.glob("*.safetensors"):
            with contextlib.suppress(OSError):
                if (found := read_index(file)) is None or found.facts["root"] == os.fspath(root):
                    file.unlink()


def read_index(file: Path) -> Listed | None:
    """Maps an index into memory; None if there is none, or none that can be read."""
    try:
        with safe_open(file, "pt") as opened:
            facts = json.loads(opened.metadata()["facts"])
            arrays = {name: opened.get_tensor(name).numpy() for name in opened.keys()}  # noqa: SIM118
        facts["states"] = [None if state is None else tuple(state) for state in facts["states"]]
        return Listed(arrays, facts, facts["watched"], file=file)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _write(files: Sequence[Path], made: Listed, more: dict[str, Any]) -> Path | None:
    """Returns the first of ``files`` that can be written; None if none can."""
    for file in files:
        with contextlib.suppress(OSError, SafetensorError):
            write_index(file, made, more)
            return file
    return None


def write_index(file: Path, made: Listed, more: dict[str, Any] | None = None) -> None:
    """Writes what was found into a file, whole or not at all, for :func:`read_index`; ``more``: further facts.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    watched = list(made.watched)
    facts = {"id": uuid.uuid4().hex, "root": os.fspath(file.parent), "states": [None] * len(watched), **made.facts}
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex[:12]}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in made.arrays.items()}
        aside.touch(exist_ok=False)
        mode = aside.stat().st_mode & 0o777  # as others may read the data; safetensors makes a file for its user alone
        save_file(arrays, aside, {"facts": json.dumps({**facts, **(more or {}), "watched": watched})})
        aside.chmod(mode)
        os.replace(aside, file)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def _stats(paths: Sequence[str]) -> list[os.stat_result | None]:
    def stat(path: str) -> os.stat_result | None:
        try:
            return os.stat(path)
        except OSError:
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        slices = [paths[first : first + 256] for first in range(0, len(paths), 256)]
        return [found for part in pool.map(lambda part: [*map(stat, part)], slices) for found in part]


def _state(found: os.stat_result | None) -> State:
    return None if found is None else (found.st_mtime_ns, found.st_ctime_ns, found.st_size)


class _Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append((record.name, record.levelno, record.getMessage()))


@contextlib.contextmanager
def _noted() -> Iterator[list[tuple[str, int, str]]]:
    """Notes what is logged meanwhile."""
    notes = _Notes()
    logging.getLogger().addHandler(notes)
    try:
        yield notes.told
    finally:
        logging.getLogger().removeHandler(notes)
