"""Saving on a thread: the loop waits for a copy only, and a disk that cannot be written costs no run and no file."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import store
from engine.checkpoints.background_saver import Saver
from engine.checkpoints.store import newest, numbered, read, step_file, verify
from tests.distributed import FORKSERVER

LONG = 60.0
"""Seconds after which a test has failed that waits for something."""


def state(step: int, size: int = 1000) -> dict[str, Any]:
    return {"format": store.FORMAT, "step": step, "model": {"weight": torch.full((size,), float(step))}}


def step_of(path: Path) -> int:
    loaded = read(path)
    assert torch.equal(loaded["model"]["weight"], torch.full_like(loaded["model"]["weight"], float(loaded["step"])))
    return int(loaded["step"])


def steps(folder: Path) -> list[int]:
    """The steps of the numbered checkpoints, newest first, all of which must be whole."""
    assert all(verify(path) is None for path in numbered(folder))
    return [step_of(path) for path in numbered(folder)]


def nobody_warned(text: str) -> None:
    raise AssertionError(text)


class Gate:
    """What the thread passes before a checkpoint gets its name, for a test to hold it there."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self) -> None:
        self.reached.release()
        assert self.opened.acquire(timeout=LONG)


class FullDisk:
    """Makes every write of a checkpoint fail while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.attempts = False, threading.Semaphore(0)
        original: Callable[..., str] = store._write

        def write(path: Path, content: dict[str, Any]) -> str:
            if not self.full:
                return original(path, content)
            path.write_bytes(b"torn")
            self.attempts.release()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        monkeypatch.setattr(store, "_write", write)


@contextlib.contextmanager
def saving(folder: Path, **options: Any) -> Iterator[Saver]:
    saver = Saver(folder, **{"keep": 2, **options})
    try:
        yield saver
    finally:
        saver.close(LONG)


# -- in normal operation ---------------------------------------------------------------------------------------------


def test_what_is_handed_over_is_written(tmp_path: Path) -> None:
    with saving(tmp_path / "checkpoints") as saver:
        for step in range(1, 5):
            saver.save(step, state(step), best=step == 1)
        assert saver.wait(LONG)
        assert steps(tmp_path / "checkpoints") == [4, 3]
        assert step_of(tmp_path / "checkpoints" / "last.pt") == 4
        assert step_of(tmp_path / "checkpoints" / "best.pt") == 1


def test_tensors_may_change_as_soon_as_save_returns(tmp_path: Path) -> None:
    gate = Gate()
    with saving(tmp_path, before_publish=gate) as saver:
        content = state(1)
        gate.opened.release(2)
        saver.save(1, content)
        content["model"]["weight"].fill_(2)
        content["step"] = 2
        saver.save(2, content)
        content["model"]["weight"].fill_(3)
    assert steps(tmp_path) == [2, 1]


def test_a_save_waits_for_the_one_before_and_the_loop_does_not(tmp_path: Path) -> None:
    gate, returned = Gate(), threading.Event()
    with saving(tmp_path, before_publish=gate) as saver:
        saver.save(1, state(1))
        assert gate.reached.acquire(timeout=LONG)
        assert not step_file(tmp_path, 1).exists(), "save returned before the file had its name"
        assert not saver.wait(0.01)

        def second() -> None:
            saver.save(2, state(2))
            returned.set()

        thread = threading.Thread(target=second)
        thread.start()
        assert not returned.wait(0.05)
        gate.opened.release()
        assert returned.wait(LONG)
        gate.opened.release()
        thread.join()
        assert saver.wait(LONG)
    assert steps(tmp_path) == [2, 1]


def test_what_must_be_on_disk_before_is_written_before(tmp_path: Path) -> None:
    seen: list[tuple[str, list[str]]] = []

    def look() -> None:
        seen.append((threading.current_thread().name, sorted(path.name for path in tmp_path.glob("*.pt"))))

    with saving(tmp_path, before_publish=look) as saver:
        saver.save(7, state(7))
        assert saver.wait(LONG)
        saver.save(8, state(8))
    assert seen == [("checkpoints", []), ("checkpoints", ["last.pt", "step_00000007.pt"])]


def test_two_good_ones_remain_while_a_third_is_written(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        store.save(tmp_path, step, state(step), keep=2)
    found: list[list[int]] = []
    with saving(tmp_path, before_publish=lambda: found.append(steps(tmp_path))) as saver:
        for step in (4, 5):
            saver.save(step, state(step))
    assert found == [[3, 2], [4, 3]]


def test_damaged_files_do_not_count_among_those_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (10, 20, 30):
        store.save(tmp_path, step, state(step), keep=3)
    for step in (20, 30):
        step_file(tmp_path, step).unlink()
        step_file(tmp_path, step).write_bytes(b"torn")
    with saving(tmp_path) as saver:
        saver.save(40, state(40))
    assert steps(tmp_path) == [40, 10]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all(str(step_file(tmp_path, step)) in text for step, text in zip((30, 20), messages, strict=True))


def test_what_a_kill_left_over_makes_room_before_anything_is_written(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        store.save(tmp_path, step, state(step), keep=3)
    (tmp_path / "step_00000004.pt.part").write_bytes(b"torn")
    found: list[set[str]] = []
    with saving(tmp_path, before_publish=lambda: found.append({path.name for path in tmp_path.iterdir()})) as saver:
        saver.save(5, state(5))
    files = ("step_00000002.pt", "step_00000003.pt", "last.pt")
    assert found == [{name for file in files for name in (file, f"{file}.sha256")} | {"step_00000005.pt.part"}]


def test_the_same_memory_serves_every_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    original = store._write

    def write(path: Path, content: dict[str, Any]) -> str:
        written.append(content["model"]["weight"].data_ptr())
        return original(path, content)

    monkeypatch.setattr(store, "_write", write)
    with saving(tmp_path) as saver:
        contents = [state(step) for step in (1, 2, 3)]
        for content in contents:
            saver.save(content["step"], content)
    assert len(written) == 3 and len(set(written)) == 1
    assert written[0] not in [content["model"]["weight"].data_ptr() for content in contents]


def test_closing_waits_and_ends_the_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    saver = Saver(tmp_path, keep=2)
    saver.save(1, state(1, size=1_000_000))
    assert saver.close(LONG)
    assert steps(tmp_path) == [1]
    assert threading.active_count() == before
    assert saver.close(LONG), "a second time changes nothing"
    with pytest.raises(RuntimeError, match="saver has ended"):
        saver.save(2, state(2))


def test_closing_waits_no_longer_than_it_is_told(tmp_path: Path) -> None:
    gate = Gate()
    saver = Saver(tmp_path, keep=2, before_publish=gate)
    saver.save(1, state(1))
    assert gate.reached.acquire(timeout=LONG)
    assert not saver.close(0.01)
    gate.opened.release()
    assert saver.wait(LONG), "what had been begun is completed"
    assert steps(tmp_path) == [1]
    saver._thread.join(LONG)
    assert not saver._thread.is_alive()


# -- when the disk is full -------------------------------------------------------------------------------------------


def test_training_goes_on_and_saving_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    disk = FullDisk(monkeypatch)
    with saving(tmp_path, retry_seconds=0.01) as saver:
        for step in (1, 2):
            saver.save(step, state(step), best=step == 1)
        assert saver.wait(LONG)
        disk.full = True
        for step in (3, 4):
            saver.save(step, state(step))
            assert not saver.wait(LONG)
        for _ in range(5):
            assert disk.attempts.acquire(timeout=LONG)
        assert steps(tmp_path) == [2, 1]
        assert len(caplog.records) == 1
        warning = caplog.records[0].getMessage()
        disk.full = False
        deadline = time.monotonic() + LONG
        while not saver.wait(LONG) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert steps(tmp_path) == [4, 2]
        assert step_of(tmp_path / "best.pt") == 1
    assert caplog.records[0].levelname == "WARNING"
    for part in (str(step_file(tmp_path, 3)), "No space left on device", " free there", "training goes on"):
        assert part in warning
    assert [(r.levelname, r.getMessage()) for r in caplog.records[1:]] == [
        ("INFO", f"checkpoint {step_file(tmp_path, 4)} is written; saving works again")
    ]


def test_a_newer_one_is_tried_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    with saving(tmp_path, retry_seconds=1000) as saver:
        disk.full = True
        saver.save(1, state(1))
        assert not saver.wait(LONG)
        disk.full = False
        saver.save(2, state(2))
        assert saver.wait(LONG)
        assert steps(tmp_path) == [2]


def test_a_best_one_that_failed_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, kept = FullDisk(monkeypatch), []
    with saving(tmp_path, retry_seconds=1000) as saver:
        disk.full = True
        for step in range(1, 8):
            saver.save(step, state(step), best=step in (2, 4))
            assert not saver.wait(LONG)
            kept.append([item.step for item in saver._pending])
        assert kept == [[1], [2], [2, 3], [4], [4, 5], [4, 6], [4, 7]]
        disk.full = False
        saver.save(8, state(8))
        assert saver.wait(LONG)
    assert steps(tmp_path) == [8, 4]
    assert step_of(tmp_path / "best.pt") == 4
    assert step_of(tmp_path / "last.pt") == 8


def test_closing_tries_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch)
    disk.full = True
    for room, step in ((False, 1), (True, 2)):
        disk.full = True
        saver = Saver(tmp_path, keep=2, retry_seconds=1000)
        saver.save(step, state(step), best=True)
        assert not saver.wait(LONG)
        assert not list(tmp_path.glob("*.part"))
        disk.full = not room
        assert saver.close(LONG) == room
        assert steps(tmp_path) == ([2] if room else [])


def test_records_that_cannot_be_flushed_hold_back_the_checkpoint(tmp_path: Path) -> None:
    broken = True

    def flush() -> None:
        if broken:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with saving(tmp_path, before_publish=flush, retry_seconds=1000) as saver:
        saver.save(1, state(1))
        assert not saver.wait(LONG)
        assert not list(tmp_path.iterdir())
        broken = False
    assert steps(tmp_path) == [1]


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_real_disk_that_fills_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Room for four checkpoints of 4 MB, two of which another file takes away for a while."""
    size = 1_000_000
    with small_disk(tmp_path / "disk", 18) as disk, saving(disk / "checkpoints", retry_seconds=1000) as saver:
        folder = disk / "checkpoints"
        for step in (1, 2):
            saver.save(step, state(step, size))
            assert saver.wait(LONG)
        (disk / "other").write_bytes(bytes(8_000_000))
        for step in range(3, 7):
            saver.save(step, state(step, size), best=step == 4)
        assert not saver.wait(LONG)
        assert steps(folder) == [2, 1]
        assert newest(folder, nobody_warned) == step_file(folder, 2)
        assert {path.name for path in folder.glob("*.p*t")} == {"step_00000001.pt", "step_00000002.pt", "last.pt"}
        (warning,) = [record.getMessage() for record in caplog.records]
        assert str(step_file(folder, 3)) in warning and "No space left on device" in warning
        (disk / "other").unlink()
        saver.save(7, state(7, size))
        assert saver.wait(LONG)
        assert steps(folder) == [7, 4]
        assert step_of(folder / "best.pt") == 4


# -- when something else goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["save", "wait", "close"])
def test_a_bug_is_raised_in_the_callers_thread(method: str, tmp_path: Path) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    saver = Saver(tmp_path, keep=2, before_publish=broken)
    saver.save(1, state(1))
    saver._thread.join(LONG)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        {"save": lambda: saver.save(2, state(2)), "wait": saver.wait, "close": saver.close}[method]()
    assert not saver.wait(LONG), "it is raised once, but nothing is on disk"
    assert not saver.close(LONG)
    with pytest.raises(RuntimeError, match="saver has ended"):
        saver.save(3, state(3))
    assert not list(tmp_path.iterdir())


def end_while_writing(folder: Path) -> None:
    writing = threading.Event()

    def hold() -> None:
        writing.set()
        time.sleep(LONG)

    saver = Saver(folder, keep=2, before_publish=hold)
    saver.save(3, state(3))
    writing.wait(LONG)
    os._exit(7)


def test_a_process_that_ends_at_once_leaves_a_part_only(tmp_path: Path) -> None:
    for step in (1, 2):
        store.save(tmp_path, step, state(step), keep=2)
    before = {path.name for path in tmp_path.iterdir()}
    process = FORKSERVER.Process(target=end_while_writing, args=(tmp_path,), daemon=True)
    process.start()
    process.join(LONG)
    assert process.exitcode == 7
    assert {path.name for path in tmp_path.iterdir()} - before == {"step_00000003.pt.part"}
    assert newest(tmp_path, nobody_warned) == step_file(tmp_path, 2)
