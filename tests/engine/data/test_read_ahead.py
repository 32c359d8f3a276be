"""Files read by threads: what was announced and what was not, in order and out of it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from functools import partial
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
    reader = FileReader(worth=0.0)
    assert reader.read(files[3]) == files[3].read_bytes(), "nothing was announced"
    reader.announce([*files, files[5], files[5]], 3)
    order = [2, 0, 5, 1, 5, 3, 4, 6, 11, 7, 5, 8, 9, 10]
    assert [(reader.read(files[number]) or b"")[0] for number in order] == order
    assert not reader._begun and not reader._coming and reader._held == 0
    assert (reader.read(files[1]) or b"")[0] == 1 and reader.wait_seconds > 0


def test_a_file_that_cannot_be_read_is_none(files: list[Path]) -> None:
    reader = FileReader(worth=0.0)
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
    reader = FileReader(worth=0.0)
    reader.announce(files, 4)
    assert [(reader.read(path) or b"")[0] for path in files] == list(range(12))


def test_no_more_is_held_than_is_allowed(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    plain = read_ahead.read_file
    monkeypatch.setattr(read_ahead, "read_file", lambda path: opened.append(path) or plain(path))
    reader = FileReader(limit=150, worth=0.0)
    reader.announce(files, 1)
    for number, path in enumerate(files):
        assert (reader.read(path) or b"")[0] == number
        assert len(opened) <= number + 3 and len(set(opened)) == len(opened)


def test_a_copy_in_another_process_begins_anew(files: list[Path]) -> None:
    reader = FileReader(limit=7)
    reader.announce(files, 2)
    again = pickle.loads(pickle.dumps(reader))
    assert again._limit == 7 and again.read(files[4]) == files[4].read_bytes()


def test_a_fork_begins_anew_too(files: list[Path]) -> None:
    reader = FileReader(worth=0.0)
    reader.announce(files, 2)
    reader.read(files[0])
    fork = multiprocessing.get_context("fork")
    own, other = fork.Pipe()

    def child() -> None:
        reader.announce(files[5:7], 2)  # threads are not there in a fork
        other.send([reader.read(files[number]) for number in (1, 5, 6)])

    process = fork.Process(target=child)
    process.start()
    try:
        assert own.poll(60) and own.recv() == [files[number].read_bytes() for number in (1, 5, 6)]
    finally:
        process.kill()
        process.join()


def test_a_file_that_is_too_large_to_be_kept_is_left_to_others(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "LARGEST", 100)
    assert read_ahead.read_file(files[2]) == files[2].read_bytes()
    monkeypatch.setattr(read_ahead, "LARGEST", 99)
    assert read_ahead.read_file(files[2]) is None
    endless = Path("/proc/self/environ")  # says that it has no bytes
    if endless.exists():
        monkeypatch.setattr(read_ahead, "LARGEST", 1)
        assert read_ahead.read_file(endless) is None


def test_what_is_being_read_counts_as_held(files: list[Path]) -> None:
    reader = FileReader(limit=250, worth=0.0)
    reader.announce(files[:1], 8)
    reader.read(files[0])
    reader.announce(files[1:], 8)
    for path in files[1:]:
        assert len(reader._begun) <= 3
        assert reader.read(path) == path.read_bytes()


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(10):
        assert read_ahead.read_file(tmp_path) is None and read_ahead.read_file(tmp_path / "none") is None
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_threads_read_only_what_takes_long(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, threads = read_ahead.read_file, list[str]()

    def noted(path: Path, seconds: float) -> bytes | None:
        threads.append(threading.current_thread().name)
        time.sleep(seconds)
        return plain(path)

    monkeypatch.setattr(read_ahead, "read_file", partial(noted, seconds=0.0))
    quick = FileReader(worth=1e9)
    quick.announce(files, 2)
    assert [quick.read(path) for path in files] == [path.read_bytes() for path in files]
    assert set(threads) == {threading.current_thread().name} and not quick._coming
    threads.clear()
    monkeypatch.setattr(read_ahead, "read_file", partial(noted, seconds=0.2))
    slow = FileReader(worth=0.02)
    slow.announce(files, 4)
    assert [slow.read(path) for path in files] == [path.read_bytes() for path in files]
    assert threads[0] == threading.current_thread().name and threads[1:].count(threads[0]) == 0
