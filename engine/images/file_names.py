"""The files that a list names, also where it spells them otherwise than the disk does."""

from __future__ import annotations

import difflib
import functools
import ntpath
import os
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from engine.data.file_check import THREADS
from engine.data.names import Names
from engine.data.read_ahead import LATELY, WORTH_A_THREAD
from engine.data.unreadable import TRANSIENT
from engine.look_alike import same_text, told_apart

NAMED = 5
"""Files that a message names."""
LOOKED_AT = 10_000
"""Most files of a folder of which the nearest is looked for."""
TRIED = 1000
"""Missing names after which it is given up to find files for them, if none of these has one."""
ALIKE = 0.75
"""What difflib has to say of two names, 0 to 1, for one to be the other's nearest."""


@dataclass(frozen=True)
class Located:
    """What became of N names."""

    spelt: dict[str, str] = field(default_factory=dict)
    """The file that each of some names must mean, which is called otherwise."""
    missing: list[int] = field(default_factory=list)
    """Numbers of the names that are no files."""
    denied: dict[str, str] = field(default_factory=dict)
    """Folders that cannot be listed, by their paths below the root, and why: nothing is known of names in them."""
    nearest: dict[int, str] = field(default_factory=dict)
    """By the number of a missing name, of the first few alone: a file in its folder that is called alike, quoted."""

    folders: list[str] = field(default_factory=list)
    """All that names lie in, as they say."""
    others: int = 0
    """How many files of the same endings, not hidden, lie in the folders of the names and have none, if asked for."""
    other: str = ""
    """The first of these."""

    def near(self, number: int) -> str:
        """Adds to a message about a missing name what is nearest to it."""
        return f"; the nearest is {self.nearest[number]}" if number in self.nearest else ""

    def told(self) -> str:
        """Says, to be read after a number, what of names that are spelt otherwise; empty if there are none."""
        if not self.spelt:
            return ""
        name, file = told_apart(*next(iter(self.spelt.items())))
        return f"are spelt otherwise than the one file that each can mean, which is taken, such as {name} for {file}"


def locate(names: Iterable[str], root: Path, count_others: bool = False) -> Located:
    """Looks for the files that ``names`` name, paths below ``root`` or absolute.

    Lists each folder once, which a network's file system does far sooner than it looks for each file. A name that is
    no file means the one file that is called the same in another Unicode form or encoding, with other slashes, as in
    a URL or in other case; an absolute one that leads nowhere also the file below ``root`` that the end of its path
    names. Where two names would mean one file, neither does; where none of the first :data:`TRIED` means one, no other
    is tried. Files without a name are kept in memory while they are counted.
    """
    names = names if isinstance(names, Names) else Names(names)
    endings = tuple({os.path.splitext(name)[1].lower() for name in names[:LOOKED_AT]} - {""})
    by_folder: dict[str, array[int]] = {}
    for number, name in enumerate(names):
        folder = name.rpartition("/")[0] or name[:1] * name.startswith("/")
        (by_folder.get(folder) or by_folder.setdefault(folder, array("q"))).append(number)

    def look_into(folder: str, there: set[str], reason: str) -> tuple[list[int], set[str], str]:
        if reason:
            return [], set(), reason
        numbers = np.array(by_folder[folder], np.int64)
        own = [name.rpartition("/")[2] for name in names.take(numbers)]
        absent = [number for number, name in zip(numbers.tolist(), own, strict=True) if name not in there]
        if not count_others:
            return absent, set(), ""
        there.difference_update(own)
        return absent, {name for name in there if name.lower().endswith(endings) and not name.startswith(".")}, ""

    looks = {folder: look_into(folder, *there) for folder, there in _listed(root, by_folder)}
    denied = {folder: reason for folder, (_, _, reason) in looks.items() if reason}
    absent = sorted(number for numbers, _, _ in looks.values() for number in numbers)
    spelt = _spelt(names, absent, root) if absent else {}
    missing = [number for number in absent if names[number] not in spelt]
    nearest = {number: near for number in missing[:NAMED] if (near := _nearest(root / names[number]))}
    others: dict[str, set[str]] = {}
    for folder, (_, unnamed, _) in looks.items():  # "a" and "./a" are one
        place = os.path.normpath(folder)
        others[place] = others.get(place, unnamed) & unnamed
    for path in spelt.values():
        others.get(os.path.dirname(path) or ".", set()).discard(os.path.basename(path))
    first = next((os.path.join(folder, min(unnamed)) for folder, unnamed in sorted(others.items()) if unnamed), "")
    unlisted = sum(map(len, others.values()))
    folders = [*{**by_folder, **dict.fromkeys(map(os.path.dirname, spelt.values()))}]
    return Located(spelt, missing, denied, nearest, folders, unlisted, os.path.normpath(first))


def _listed(root: Path, folders: Iterable[str]) -> Iterator[tuple[str, tuple[set[str], str]]]:
    """Yields folders with what lies in each, none if it is not there, or with why it cannot be listed.

    Where that is waited for, threads list some at a time, and do no more than that: memory that they allocate stays
    theirs. Elsewhere they would wait for each other.
    """

    def names(folder: str) -> tuple[set[str], str]:
        try:
            return set(os.listdir(root / folder)), ""
        except OSError as error:
            denied = isinstance(error, PermissionError) or error.errno in TRANSIENT
            return set(), (error.strerror or str(error)) if denied else ""

    def waited_so_far() -> float:
        return time.perf_counter() - time.thread_time()

    coming, lately = iter(folders), 0.0
    for folder in coming:
        before = waited_so_far()
        found = names(folder)
        lately += (waited_so_far() - before - lately) / LATELY
        yield folder, found
        if lately > WORTH_A_THREAD:
            break
    running = deque[tuple[str, Future[tuple[set[str], str]]]]()
    with ThreadPoolExecutor(THREADS) as pool:
        while True:
            running += [(folder, pool.submit(names, folder)) for folder in islice(coming, 2 * THREADS - len(running))]
            if not running:
                return
            folder, future = running.popleft()
            yield folder, future.result()


def _spelt(names: Names, absent: list[int], root: Path) -> dict[str, str]:
    """The one file for each of the names that are absent."""
    find = functools.partial(_find, functools.cache(functools.partial(_entries, root)))
    found: dict[str, str] = {}
    for tried, name in enumerate(dict.fromkeys(names[number] for number in absent)):
        if tried == TRIED and not found:
            break
        if path := find(name):
            found[name] = path
    if not found:
        return found
    meant = Counter(os.path.normpath(path) for path in found.values())
    gone = set(absent)
    meant.update(path for number, name in enumerate(names) if number not in gone and (path := os.path.normpath(name)))
    return {name: path for name, path in found.items() if meant[os.path.normpath(path)] == 1}


Entries = Callable[[str, Callable[[str], str]], dict[str, list[str]]]


def _entries(root: Path, folder: str, key: Callable[[str], str]) -> dict[str, list[str]]:
    """What lies in a folder, by what ``key`` makes of its names."""
    found: dict[str, list[str]] = {}
    try:
        for name in os.listdir(root / folder):
            found.setdefault(key(name), []).append(name)
    except OSError:  # no such folder, or none that may be listed
        pass
    return found


def _any_case(name: str) -> str:
    return same_text(name).casefold()


def _find(entries: Entries, name: str) -> str | None:
    """The one path that ``name`` can mean."""
    readings = ((path, key) for path in _readings(name) for key in (same_text, _any_case))
    return next(filter(None, (_follow(entries, path, key) for path, key in readings)), None)


def _follow(entries: Entries, path: str, key: Callable[[str], str]) -> str | None:
    """The one path whose parts are those of ``path``, by what ``key`` makes of them."""
    place = "/" if path.startswith("/") else ""
    for part in filter(None, path.split("/")):
        there = [part] if part in (".", "..") else entries(place, key).get(key(part), [])
        if part not in there and len(there) != 1:
            return None
        place = os.path.join(place, part if part in there else there[0])
    return place


def _readings(name: str) -> Iterator[str]:
    """Paths that a name may stand for; of absolute ones also their ends, the longest first."""
    for text in dict.fromkeys((name, unquote(name))):
        drive, path = ntpath.splitdrive(text)
        path = path.replace("\\", "/")
        if not drive:
            yield path
        if drive or path.startswith("/"):
            parts = path.strip("/").split("/")
            yield from ("/".join(parts[first:]) for first in range(len(parts)))


def _nearest(path: Path) -> str:
    """The name of the file in the folder of ``path`` that is most like its own; empty if none is."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return ""
    name = ntpath.basename(path.name)
    by_text = {same_text(other): other for other in names[:LOOKED_AT]}
    near = difflib.get_close_matches(same_text(name), sorted(by_text), 1, ALIKE)
    return told_apart(path.name, by_text[near[0]])[1] if near else ""
