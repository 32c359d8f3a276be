"""Files below a folder, and what is left out of a listing: counted, and the first of each kind named."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from engine.data.index import FOLDER as INDEX
from engine.data.unreadable import TRANSIENT
from engine.images.image_io import open_image

log = logging.getLogger(__name__)

KINDS = 200
"""Most endings that are told apart."""
LOOKED_INTO = 3
"""First files of an ending that are opened, to know whether it is one of images."""
UNREADABLE = (
    ".heic", ".heif", ".hif", ".jxl", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".psd",
    ".xcf", ".eps", ".dcm", ".exr", ".hdr",
)  # fmt: skip
"""Endings of pictures that are to be converted, since Pillow does not read them or not as people see them."""

Identity = tuple[int, int]
"""Device and inode."""


class LeftOut:
    """Counts what listings leave out, so that a line in the log tells of each kind."""

    def __init__(self, where: str) -> None:
        """``where``: what the lines begin with."""
        self._where = where
        self._others: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}
        self.denied: dict[str, str] = {}
        """Folders that cannot be read, and why."""
        self.links: list[str] = []
        """Links to folders that hold what was listed, or belong to something else."""
        self.folders: list[str] = []
        """All folders that were looked into, or could not be."""
        self._hidden, self._first_hidden = 0, ""

    def images(self, folder: Path, names: Iterable[str], endings: Collection[str]) -> list[str]:
        """Returns those of the files ``names`` in ``folder`` that have one of the ``endings``; counts the others."""
        chosen, others, fitting = list[str](), list[str](), tuple(ending.lower() for ending in endings)
        for name in names:
            (chosen if name.lower().endswith(fitting) else others).append(name)
        for name in sorted(others):
            self.add(folder, name)
        return chosen

    def add(self, folder: Path, name: str) -> None:
        """Counts a file of another ending."""
        ending = os.path.splitext(name)[1]
        ending = ending if ending in self._counts or len(self._counts) < KINDS else "other endings"
        self._counts[ending] = self._counts.get(ending, 0) + 1
        if len(first := self._others.setdefault(ending, [])) < LOOKED_INTO:
            first.append(os.path.join(folder, name))

    def hide(self, folder: str, names: list[str]) -> None:
        """Counts hidden files and folders, but for the one of indices."""
        names = [name for name in names if name != INDEX]
        self._first_hidden = self._first_hidden or (os.path.join(folder, min(names)) if names else "")
        self._hidden += len(names)

    def tell(self, how: str) -> None:
        """Logs what was left out; ``how``: what makes files of other endings be taken."""
        if self.denied:
            folder, reason = next(iter(self.denied.items()))
            text = "%s: %d folders cannot be read, and all in them is left out; the first: %s: %s; ask for permission"
            log.warning(text, self._where, len(self.denied), folder, reason)
        if self.links:
            text = "%s: %d links to folders that hold this one, or are another class, are left out; the first: %s"
            log.warning(text, self._where, len(self.links), f"{self.links[0]} -> {os.path.realpath(self.links[0])}")
        readable = [ending for ending, first in self._others.items() if any(map(_opens, filter(os.path.isfile, first)))]
        foreign = [ending for ending in self._others if ending not in readable and ending.lower() in UNREADABLE]
        if readable or foreign:
            cures = [f"{_listed(readable)} can be read: {how}"] if readable else []
            cures += [f"convert {_listed(foreign)}"] if foreign else []
            log.warning("%s", f"{self._told('images', [*readable, *foreign])}; {'; '.join(cures)}")
        if others := [ending for ending in self._others if ending not in (*readable, *foreign)]:
            log.info("%s", self._told("files that are no images", others))
        if self._hidden:
            text = "%s: %d hidden files and folders left out; the first: %s"
            log.info(text, self._where, self._hidden, self._first_hidden)

    def _told(self, what: str, endings: list[str]) -> str:
        endings = sorted(endings, key=lambda ending: -self._counts[ending])
        total, first = sum(self._counts[ending] for ending in endings), self._others[endings[0]][0]
        counts = ", ".join(f"{self._counts[ending]} x {_listed([ending])}" for ending in endings[:5])
        more = ", ..." if len(endings) > 5 else ""
        return f"{self._where}: {total} {what} left out for their endings ({counts}{more}); the first: {first}"


def _listed(endings: list[str]) -> str:
    return ", ".join(ending or "no ending" for ending in endings[:5])


def _opens(file: str) -> bool:
    """Whether a file's header is one of an image; no more of it is read."""
    try:
        with open_image(Path(file)):
            return True
    except Exception:  # a decoder that meets other data raises whatever its parsing trips over
        return False


def identity(folder: str | os.PathLike[str]) -> Identity:
    """Returns what a folder is, by whatever links it is reached."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def files_below(folder: Path, left_out: LeftOut, others: Collection[Identity] = ()) -> Iterator[str]:
    """Yields the paths below ``folder`` of all files that are not hidden; each folder once, however many links lead
    to it. Notes in ``left_out`` hidden ones, folders that cannot be read, and links to folders that hold this one or
    are among ``others``.

    Raises:
        OSError: the storage fails.
    """
    top, seen = os.fspath(folder), set[Identity]()

    def deny(error: OSError) -> None:
        if error.errno in TRANSIENT:
            raise error
        left_out.folders.append(str(error.filename))
        left_out.denied[str(error.filename)] = error.strerror or str(error)

    for path, subfolders, files in os.walk(top, onerror=deny, followlinks=True):
        own = identity(path)
        if own in seen:
            subfolders.clear()
            continue
        if path != top and (own in others or (os.path.islink(path) and _holds(path, top))):
            left_out.links.append(path)
            subfolders.clear()
            continue
        seen.add(own)
        left_out.folders.append(path)
        left_out.hide(path, [name for names in (files, subfolders) for name in names if name.startswith(".")])
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        prefix = "" if path == top else os.path.relpath(path, top) + os.sep
        yield from (prefix + name for name in files if not name.startswith("."))


def _holds(path: str, top: str) -> bool:
    """Whether a link leads to a folder that the folder ``top`` lies in."""
    return os.path.realpath(top).startswith(os.path.join(os.path.realpath(path), ""))
