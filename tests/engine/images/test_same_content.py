"""Copies by content: whole where that is cheap, a part and said to be where it is not."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from engine.data.file_check import InFiles
from engine.images import same_content
from engine.images.same_content import copies_across, copies_between


class Folder(InFiles):
    """Files of a folder, in order."""

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        folder.mkdir()
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        self._folder, self._names = folder, sorted(contents)

    def __len__(self) -> int:
        return len(self._names)

    def path(self, index: int) -> Path:
        return self._folder / self._names[index]

    def image(self, index: int) -> None: ...


class Digested(Folder):
    """The same, with digests that are known."""

    @property
    def digests(self) -> np.ndarray:
        return np.array([zlib.crc32(self.content(index)) for index in range(len(self))], np.int64)


@pytest.mark.parametrize("kind", [Folder, Digested])
def test_both_ways_find_the_same(tmp_path: Path, kind: type[Folder]) -> None:
    random = np.random.default_rng(0)
    contents = [{f"{k:03}": b"%d" % random.integers(100) for k in range(count)} for count in (60, 30)]
    known, other = kind(tmp_path / "train", contents[0]), kind(tmp_path / "val", contents[1])
    first = {content: k for k, content in reversed(list(enumerate(contents[0].values())))}
    expected = [(k, first[content]) for k, content in enumerate(contents[1].values()) if content in first]
    copies = copies_between(known, other)
    assert copies.pairs == expected and expected and not copies.part
    labels = np.arange(60) % 2
    found = copies_across(known, labels)
    assert found.pairs and not found.part
    values = list(contents[0].values())
    assert all(values[i] == values[j] and labels[i] != labels[j] and first[values[i]] == i for i, j in found.pairs)


def test_copies_and_links_are_found_under_any_name(tmp_path: Path) -> None:
    known = Folder(tmp_path / "train", {"a": b"one", "b": b"two", "c": b"three", "e": b""})
    other = Folder(tmp_path / "val", {"m": b"six", "n": b"two", "o": b"", "p": b"", "q": b""})
    for name, source in (("o", "a"), ("p", "c")):
        other.path("mnopq".index(name)).unlink()
        (os.link if name == "o" else os.symlink)(tmp_path / "train" / source, tmp_path / "val" / name)
    copies = copies_between(known, other)
    assert copies.pairs == [(1, 1), (2, 0), (3, 2)] and not copies.part  # empty files are none
    assert copies.count(5) == "3 of 5"


def test_copies_within_a_class_do_not_matter(tmp_path: Path) -> None:
    files = Folder(tmp_path / "train", {"a": b"one", "b": b"one", "c": b"one", "d": b"two", "e": b"two"})
    assert copies_across(files, np.array([0, 0, 1, 1, 1])).pairs == [(0, 2)]


def test_files_of_other_sizes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or read_bytes(path))
    known = Folder(tmp_path / "train", {"a": b"1", "b": b"22", "c": b"23"})
    copies_between(known, Folder(tmp_path / "val", {"x": b"333", "y": b"24"}))
    assert sorted(read) == ["b", "c", "y"]


@pytest.mark.parametrize(("bound", "value"), [("SIZED", 60), ("DIGESTED", 80), ("READ_BYTES", 400)])
def test_of_too_many_files_some_are_looked_at_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    known, other = (Folder(tmp_path / name, {f"{k:03}": b"%03d" % k for k in range(100)}) for name in ("train", "val"))
    assert len(copies_between(known, other).pairs) == 100
    monkeypatch.setattr(same_content, bound, value)
    copies = copies_between(known, other)
    assert 0 < len(copies.pairs) < 100 and copies.part and copies == copies_between(known, other)
    assert copies.count(100) == f"at least {len(copies.pairs)} of 100 (not all were compared)"


def test_files_that_are_gone_are_left_to_others(tmp_path: Path) -> None:
    known, other = (Folder(tmp_path / name, {"a": b"same", "b": b"also"}) for name in ("train", "val"))
    known.path(0).unlink()
    assert copies_between(known, other).pairs == [(1, 1)]
