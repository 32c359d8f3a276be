"""Checkpoint files: complete whatever happens while they are written, and never trusted unseen."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import store
from engine.checkpoints.store import checksum_file, newest, numbered, read, save, step_file, tidy, verify
from engine.errors import UserError
from tests.distributed import FORKSERVER


def state(step: int, size: int = 100) -> dict[str, Any]:
    return {"format": store.FORMAT, "step": step, "model": {"weight": torch.full((size,), float(step))}}


def step_of(path: Path) -> int:
    loaded = read(path)
    assert torch.equal(loaded["model"]["weight"], torch.full_like(loaded["model"]["weight"], float(loaded["step"])))
    return int(loaded["step"])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def with_checksums(*files: str) -> set[str]:
    return {name for file in files for name in (file, file + ".sha256")}


def nobody_warned(text: str) -> None:
    raise AssertionError(text)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    replace(path, bytes(content))


def replace(path: Path, content: bytes) -> None:
    """New content under one name only: the other names of a linked file keep the old one."""
    path.unlink()
    path.write_bytes(content)


# -- saving ----------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    path = save(tmp_path / "new" / "checkpoints", 7, state(7), keep=2)
    assert path == step_file(tmp_path / "new" / "checkpoints", 7) and path.name == "step_00000007.pt"
    assert verify(path) is None
    assert step_of(path) == 7
    assert torch.load(path, weights_only=True)["step"] == 7
    assert names(path.parent) == with_checksums("step_00000007.pt", "last.pt")


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    save(tmp_path, 3, state(3), keep=2, best=True)
    save(tmp_path, 4, state(4), keep=2, best=True)
    for name in ("step_00000003.pt", "step_00000004.pt", "last.pt", "best.pt"):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert checksum_file(tmp_path / name).read_text() == f"{digest}  {name}\n"


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step, state(step), keep=3, best=step in (1, 2))
    expected = with_checksums("step_00000005.pt", "step_00000006.pt", "step_00000007.pt", "last.pt", "best.pt")
    assert names(tmp_path) == expected
    assert step_of(tmp_path / "last.pt") == 7
    assert step_of(tmp_path / "best.pt") == 2
    assert all(verify(tmp_path / name) is None for name in expected if name.endswith(".pt"))
    assert [step_of(path) for path in numbered(tmp_path)] == [7, 6, 5]


def test_aliases_take_no_space(tmp_path: Path) -> None:
    path = save(tmp_path, 1, state(1), keep=2, best=True)
    assert path.stat().st_nlink == 3


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(source: Any, target: Any) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", no_link)
    for step in (1, 2, 3):
        path = save(tmp_path, step, state(step), keep=2, best=step == 1)
    assert path.stat().st_nlink == 1
    assert step_of(tmp_path / "last.pt") == 3 and verify(tmp_path / "last.pt") is None
    assert step_of(tmp_path / "best.pt") == 1 and verify(tmp_path / "best.pt") is None
    assert names(tmp_path) == with_checksums("step_00000002.pt", "step_00000003.pt", "last.pt", "best.pt")


def test_the_same_step_may_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 5, state(5), keep=2)
    save(tmp_path, 5, {**state(5), "more": 1}, keep=2, best=True)
    assert read(step_file(tmp_path, 5))["more"] == 1
    assert all(verify(tmp_path / name) is None for name in ("step_00000005.pt", "last.pt", "best.pt"))


def test_what_a_kill_left_over_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    for name in ("step_00000001.pt.part", "last.pt.part", "step_00000002.pt.sha256", ".last.pt.sha256.0123"):
        (tmp_path / name).write_text("torn")
    for name in ("mine.pt", "notes.txt"):
        (tmp_path / name).write_text("the user's")
    save(tmp_path, 3, state(3), keep=2)
    assert names(tmp_path) == with_checksums("step_00000003.pt", "last.pt") | {"mine.pt", "notes.txt"}


def test_damaged_later_files_do_not_push_out_good_ones(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, state(step), keep=3)
    for step in (20, 30):
        flip(step_file(tmp_path, step))
    (tmp_path / "last.pt").unlink()
    warned: list[str] = []
    assert newest(tmp_path, warned.append) == step_file(tmp_path, 10)
    save(tmp_path, 15, state(15), keep=2)
    assert newest(tmp_path, nobody_warned) == step_file(tmp_path, 15)
    assert [step_of(path) for path in numbered(tmp_path)] == [15, 10]


def test_content_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, state(1), keep=2)
    events: list[tuple[str, str]] = []

    def record(module: Any, function: str, name: Callable[..., str]) -> None:
        original = getattr(module, function)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            events.append((function, name(*args)))
            return original(*args, **kwargs)

        monkeypatch.setattr(module, function, wrapped)

    record(os, "fsync", lambda descriptor: Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
    record(os, "replace", lambda source, target: f"{Path(source).name} {Path(target).name}")
    record(Path, "replace", lambda source, target: f"{source.name} {Path(target).name}")
    record(Path, "unlink", lambda path, **_: path.name)
    save(tmp_path, 2, state(2), keep=1, best=True)

    def place(event: str, text: str) -> int:
        return next(i for i, (kind, name) in enumerate(events) if kind == event and text in name)

    named = place("replace", "step_00000002.pt.part step_00000002.pt")
    assert place("fsync", "step_00000002.pt.part") < named
    assert place("fsync", ".step_00000002.pt.sha256.") < place("replace", " step_00000002.pt.sha256") < named
    for alias in ("last", "best"):
        assert named < place("replace", f"{alias}.pt.part {alias}.pt")
        assert place("replace", f" {alias}.pt.sha256") < place("replace", f"{alias}.pt.part {alias}.pt")
    removed = place("unlink", "step_00000001.pt")
    last_sync = max(i for i, event in enumerate(events) if event == ("fsync", tmp_path.name))
    assert max(i for i, (kind, _) in enumerate(events) if kind == "replace") < last_sync < removed


def test_a_full_disk_is_an_error_that_leaves_nothing_behind(tmp_path: Path) -> None:
    save(tmp_path, 1, state(1), keep=2)
    before, limits = names(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path, 2, state(2, size=100_000), keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == before
    assert newest(tmp_path, nobody_warned) == step_file(tmp_path, 1)


@pytest.mark.parametrize("failing", ["before it gets its name", "its checksum", "last.pt"])
def test_nothing_torn_is_left_wherever_a_save_fails(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save(tmp_path, step, state(step), keep=2, best=step == 1)
    write_atomic = store.write_atomic

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(path: Path, text: str) -> None:
        if path.name == {"its checksum": "step_00000003.pt.sha256"}.get(failing, "last.pt.sha256"):
            full()
        write_atomic(path, text)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        if failing != "before it gets its name":
            patch.setattr(store, "write_atomic", write)
        early = failing == "before it gets its name"
        save(tmp_path, 3, state(3), keep=2, before_publish=full if early else lambda: None)
    assert not list(tmp_path.glob("*.part"))
    expected = [3, 2, 1] if failing == "last.pt" else [2, 1]
    assert [step_of(path) for path in numbered(tmp_path)] == expected
    assert all(verify(path) is None for path in tmp_path.glob("*.pt"))
    tidy(tmp_path, 2, nobody_warned)
    assert [step_of(path) for path in numbered(tmp_path)] == expected[:2]
    save(tmp_path, 3, state(3), keep=2)
    assert names(tmp_path) == with_checksums("step_00000002.pt", "step_00000003.pt", "last.pt", "best.pt")


def test_tidying_leaves_whole_files_and_what_is_not_ours(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step, state(step), keep=4, best=step == 1)
    flip(step_file(tmp_path, 3))
    for name in ("step_00000009.pt.part", ".last.pt.sha256.0123", "mine.pt"):
        (tmp_path / name).write_text("text")
    warned: list[str] = []
    tidy(tmp_path, 2, warned.append)
    assert [step_of(path) for path in numbered(tmp_path)] == [4, 2]
    assert len(warned) == 1 and str(step_file(tmp_path, 3)) in warned[0]
    assert verify(tmp_path / "last.pt") is None and verify(tmp_path / "best.pt") is None
    assert not list(tmp_path.glob("*.part")) and (tmp_path / "mine.pt").exists()
    tidy(tmp_path / "absent", 2, nobody_warned)


def test_tidying_leaves_what_cannot_be_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, state(step), keep=3)
    checksum_file(step_file(tmp_path, 3)).unlink()

    def broken(_: Any) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(store, "digest", broken)
        tidy(tmp_path, 2, nobody_warned)
    tidy(tmp_path, 2, nobody_warned)
    assert [step_of(path) for path in numbered(tmp_path)] == [3, 2, 1]


# -- killed while saving ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "copies"])
def test_stopped_between_any_two_changes_every_name_verifies(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change of a folder's entries in turn is the first that no longer happens; then the run goes on."""

    class Killed(BaseException):
        pass

    changes, limit = 0, 0
    originals: dict[str, Callable[..., Any]] = {
        "rename": Path.replace,
        "replace": os.replace,
        "link": os.link,
        "unlink": Path.unlink,
    }

    def counted(name: str) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            nonlocal changes
            changes += 1
            if changes > limit:
                raise Killed
            if name == "link" and not links:
                raise OSError("no hard links here")
            return originals[name](*args, **kwargs)

        return change

    def good(folder: Path, *files: str) -> None:
        for file in files:
            assert verify(folder / file) is None, f"{file} after {limit} changes"
            step_of(folder / file)

    for limit in range(100):
        folder = tmp_path / str(limit)
        for step in (1, 2, 3):
            save(folder, step, state(step), keep=2, best=step == 1)
        changes = 0
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", counted("rename"))
            patch.setattr(os, "replace", counted("replace"))
            patch.setattr(os, "link", counted("link"))
            patch.setattr(Path, "unlink", counted("unlink"))
            try:
                save(folder, 4, state(4), keep=2, best=True)
                break
            except Killed:
                pass
        good(folder, "last.pt", "best.pt", *(path.name for path in numbered(folder)))
        path = newest(folder, nobody_warned)
        assert path is not None and step_of(path) in (3, 4)
        for step in (5, 6, 7):  # no new best: its name stays what the kill made of it
            save(folder, step, state(step), keep=2)
        good(folder, "last.pt", "best.pt", *(path.name for path in numbered(folder)))
        assert step_of(folder / "best.pt") in (1, 4)
        assert names(folder) == with_checksums("step_00000006.pt", "step_00000007.pt", "last.pt", "best.pt")
    assert limit > 15, "the save was to be cut at every change"


def keep_saving(folder: Path, first_step: int) -> None:
    for step in range(first_step, 10**6):
        save(folder, step, state(step, size=300_000), keep=2, best=step % 3 == 0)


def test_killed_at_random_moments_a_good_checkpoint_remains(tmp_path: Path) -> None:
    save(tmp_path, 0, state(0), keep=2, best=True)
    chance, done = random.Random(0), 0
    for _ in range(10):
        saver = FORKSERVER.Process(target=keep_saving, args=(tmp_path, done + 1), daemon=True)
        saver.start()
        while not step_file(tmp_path, done + 1).exists():
            assert saver.is_alive()
            time.sleep(0.001)
        for _ in range(2):  # looks in between must not disturb, nor be disturbed
            time.sleep(chance.uniform(0.0, 0.05))
            assert verify(tmp_path / "last.pt") is None
        saver.kill()
        saver.join()
        path = newest(tmp_path, nobody_warned)
        assert path is not None and step_of(path) > done
        assert verify(tmp_path / "last.pt") is None and verify(tmp_path / "best.pt") is None
        done = step_of(path)


def test_a_reader_is_not_misled_by_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is replaced, with its checksum, between the reader's look at one and at the other."""
    save(tmp_path, 1, state(1), keep=2)
    open_path = Path.open
    opened: list[Path] = []

    def open_late(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "last.pt" and not opened:
            opened.append(path)
            save(tmp_path, 2, state(2), keep=2)
        return open_path(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_late)
    assert verify(tmp_path / "last.pt") is None
    assert opened and step_of(tmp_path / "last.pt") == 2


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage, fault",
    [
        (flip, "torn or altered"),
        (lambda path: replace(path, path.read_bytes()[:-100]), "torn or altered"),
        (lambda path: replace(path, b""), "torn or altered"),
        (lambda path: checksum_file(path).unlink(), "no checksum"),
        (lambda path: replace(checksum_file(path), b""), "no checksum"),
        (lambda path: replace(checksum_file(path), b"\xff\x00"), "torn or altered"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder, no file"),
    ],
    ids=["flipped bit", "torn", "emptied", "no checksum", "empty checksum", "garbled checksum", "a folder"],
)
def test_a_damaged_file_is_passed_over_and_named(damage: Callable[[Path], Any], fault: str, tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step, state(step), keep=2)
    damage(step_file(tmp_path, 2))
    warned: list[str] = []
    path = newest(tmp_path, warned.append)
    assert path is not None and step_of(path) == 1
    assert len(warned) == 1 and str(step_file(tmp_path, 2)) in warned[0] and fault in warned[0]


def test_the_best_is_taken_where_nothing_newer_is_whole(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, state(step), keep=2, best=step == 1)
    for name in ("step_00000002.pt", "step_00000003.pt", "last.pt"):
        flip(tmp_path / name)
    warned: list[str] = []
    assert newest(tmp_path, warned.append) == tmp_path / "best.pt"
    assert len(warned) == 3


def damage_in_place(path: Path, kind: str) -> None:
    """Under all names of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes({"flipped": bytes(content), "torn": bytes(content[:-1]), "emptied": b""}[kind])


@pytest.mark.parametrize("kind", ["flipped", "torn", "emptied"])
def test_a_damaged_last_one_is_damaged_under_both_its_names(kind: str, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, state(step), keep=2, best=step == 1)
    damage_in_place(tmp_path / "last.pt", kind)
    assert "torn or altered" in str(verify(tmp_path / "last.pt"))
    warned: list[str] = []
    assert newest(tmp_path, warned.append) == step_file(tmp_path, 2)
    assert len(warned) == 1 and str(step_file(tmp_path, 3)) in warned[0] and "torn or altered" in warned[0]


@pytest.mark.parametrize("kind", ["flipped", "torn", "emptied"])
def test_damaged_aliases_are_passed_over_and_named(kind: str, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step, state(step), keep=2, best=step == 1)
    for path in numbered(tmp_path):
        path.unlink()
    damage_in_place(tmp_path / "last.pt", kind)
    warned: list[str] = []
    assert newest(tmp_path, warned.append) == tmp_path / "best.pt"
    assert len(warned) == 1 and str(tmp_path / "last.pt") in warned[0]
    damage_in_place(tmp_path / "best.pt", kind)
    assert newest(tmp_path, warned.append) is None
    assert len(warned) == 3 and str(tmp_path / "best.pt") in warned[2]


@pytest.mark.parametrize("kind", ["flipped", "torn", "emptied"])
def test_a_damaged_copy_does_not_harm_the_numbered_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(source: Any, target: Any) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", no_link)
    save(tmp_path, 1, state(1), keep=2)
    damage_in_place(tmp_path / "last.pt", kind)
    assert newest(tmp_path, nobody_warned) == step_file(tmp_path, 1)
    assert "torn or altered" in str(verify(tmp_path / "last.pt"))


def test_an_empty_folder_has_no_newest(tmp_path: Path) -> None:
    assert newest(tmp_path, nobody_warned) is None
    assert newest(tmp_path / "absent", nobody_warned) is None


def test_all_damaged_means_none(tmp_path: Path) -> None:
    path = save(tmp_path, 1, state(1), keep=2)
    with path.open("r+b") as file:  # under both of its names
        file.truncate(100)
    warned: list[str] = []
    assert newest(tmp_path, warned.append) is None
    assert len(warned) == 2
    assert verify(tmp_path / "absent.pt") == "is not there"


def test_a_copied_folder_verifies(tmp_path: Path) -> None:
    save(tmp_path / "a", 1, state(1), keep=2, best=True)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert all(verify(tmp_path / "b" / name) is None for name in ("step_00000001.pt", "last.pt", "best.pt"))


class Harmful:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "content, text",
    [
        ({"model": {}}, "not a checkpoint of this suite"),
        ([1, 2], "not a checkpoint of this suite"),
        ({**state(1), "format": 999}, "format 999, but this version reads format 1"),
    ],
    ids=["no format", "a list", "later format"],
)
def test_other_files_are_refused(content: Any, text: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=f"other.pt: {text}"):
        read(tmp_path / "other.pt")


def test_a_file_that_carries_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({**state(1), "extra": Harmful(tmp_path / "harm")}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: cannot be read as a checkpoint: \w+"):
        read(tmp_path / "other.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "text", "absent"])
def test_unreadable_files_are_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "other.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"other\.pt: cannot be read as a checkpoint: \S+"):
        read(tmp_path / "other.pt")
