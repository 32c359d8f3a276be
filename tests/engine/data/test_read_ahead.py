"""Files read by threads: what was announced and what was not, in order and out of it."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import pytest

from engine.data import read_ahead
from engine.data.read_ahead import FileReader


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}" for number in range(12)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return paths


def test_what_was_announced_is_read_whatever_its_order(files: list[Path]) -> None:
    reader = FileReader()
    assert reader.read(files[3]) == files[3].read_bytes(), "nothing was announced"
    reader.announce([*files, files[5], files[5]], 3)
    order = [2, 0, 5, 1, 5, 3, 4, 6, 11, 7, 5, 8, 9, 10]
    assert [(reader.read(files[number]) or b"")[0] for number in order] == order
    assert not reader._begun and not reader._coming and reader._held == 0
    assert (reader.read(files[1]) or b"")[0] == 1 and reader.wait_seconds > 0


def test_a_file_that_cannot_be_read_is_none(files: list[Path]) -> None:
    reader = FileReader()
    files[1].unlink()
    reader.announce(files, 2)
    assert [reader.read(path) is None for path in files] == [number == 1 for number in range(12)]


def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert FileReader().read(tmp_path / "pipe") is None and FileReader().read(tmp_path) is None


def test_files_are_opened_at_the_same_time(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4, timeout=60)
    plain = read_ahead.read_file
    monkeypatch.setattr(read_ahead, "read_file", lambda path: (together.wait() and None) or plain(path))
    reader = FileReader()
    reader.announce(files, 4)
    assert [(reader.read(path) or b"")[0] for path in files] == list(range(12))


def test_no_more_is_held_than_is_allowed(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    plain = read_ahead.read_file
    monkeypatch.setattr(read_ahead, "read_file", lambda path: opened.append(path) or plain(path))
    reader = FileReader(limit=150)
    reader.announce(files, 1)
    for number, path in enumerate(files):
        assert (reader.read(path) or b"")[0] == number
        assert len(opened) <= number + 3 and len(set(opened)) == len(opened)


def test_a_copy_in_another_process_begins_anew(files: list[Path]) -> None:
    reader = FileReader(limit=7)
    reader.announce(files, 2)
    again = pickle.loads(pickle.dumps(reader))
    assert again._limit == 7 and again.read(files[4]) == files[4].read_bytes()
