"""Atomic writes: the old content or the new, nothing else, nothing beside."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.files import check_writable, remove_leftovers, shown, write_atomic

WRITER = """
import sys
from pathlib import Path
from engine.files import write_atomic
while True:
    for letter in "ab":
        write_atomic(Path(sys.argv[1]), letter * 200_000)
"""


def test_content_is_replaced_and_nothing_lies_beside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "one")
    write_atomic(path, "zwei ü\n")
    assert path.read_text(encoding="utf-8") == "zwei ü\n"
    assert list(tmp_path.iterdir()) == [path]


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    write_atomic(tmp_path / "atomic", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_leads_to_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, "one")
    assert os.read(reader, 100) == b"one"
    assert pipe.is_fifo()
    os.close(reader)


def test_standard_output_is_written_to(tmp_path: Path) -> None:
    code = "from pathlib import Path; from engine.files import write_atomic; write_atomic(Path('/dev/stdout'), 'two')"
    links = [Path(f"/dev/{name}").is_symlink() for name in ("stdout", "null")]
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout == b"two"
    with (tmp_path / "file").open("w+") as file:
        print("one", file=file, flush=True)
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert (tmp_path / "file").read_text() == "one\ntwo"
    assert [Path(f"/dev/{name}").is_symlink() for name in ("stdout", "null")] == links


def test_a_full_disk_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space") as raised:
        write_atomic(tmp_path / "file", "new")
    assert raised.value.filename == os.fspath(tmp_path / "file")


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for attempt in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, os.fspath(path)])
        while not path.exists():
            time.sleep(0.01)
        time.sleep(0.03 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = path.read_text()
        assert content in ("a" * 200_000, "b" * 200_000)


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    process = subprocess.Popen([sys.executable, "-c", WRITER, os.fspath(path)])
    while not (asides := [found for found in tmp_path.iterdir() if found.name.startswith(".file.json.")]):
        time.sleep(0.001)
    process.kill()
    process.wait()
    asides[0].touch()  # in case it was renamed in between
    for name in (".writer.json", "README.md", ".hidden.file"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(found.name for found in tmp_path.iterdir() if found != path) == [
        ".hidden.file",
        ".writer.json",
        "README.md",
    ]


def test_a_path_is_shown_as_it_can_be_used_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert shown(here / "a run" / "last.pt") == "'a run/last.pt'"
    assert shown(Path("a")) == "a"
    assert shown(tmp_path / "beside") == str(tmp_path / "beside")
    (tmp_path / "link").symlink_to(here)
    assert shown(tmp_path / "link" / "a") == "a"


def test_a_place_that_cannot_be_written_is_refused_under_its_key() -> None:
    with pytest.raises(UserError, match=r"^experiment\.root: /proc cannot be written"):
        check_writable(Path("/proc/runs"))


def test_text_may_have_names_that_are_no_text(tmp_path: Path) -> None:
    write_atomic(tmp_path / "x.md", "caf\udce9 \u00e9")
    assert (tmp_path / "x.md").read_text(encoding="utf-8") == "caf\\udce9 \u00e9"
