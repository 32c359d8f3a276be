"""Images that a command line names."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from engine.commands.named_files import find_images
from engine.errors import UserError


def files_of(paths: list[Path]) -> list[Path]:
    """The files that paths without tables name."""
    found = find_images([str(path) for path in paths], "path", Path())
    assert all(Path(name) == file for name, file in found)
    return [file for _, file in found]


def test_folders_are_searched_and_files_are_taken_at_their_word(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("a/2.jpg", "a/1.PNG", "a/deep/3.webp", "a/readme.txt", "any"):
        (tmp_path / name).touch()
    found = files_of([tmp_path / "any", tmp_path / "a", tmp_path / "a" / "2.jpg"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["any", "a/1.PNG", "a/2.jpg", "a/deep/3.webp"]


def test_empty_text_is_not_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").touch()
    assert len(find_images(["."], "path", Path())) == 1
    with pytest.raises(UserError, match="--images: '' names nothing"):
        find_images([""], "path", Path())


def test_tables_are_read_to_their_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_text('path,x\na.jpg,"1\nb.jpg,2"\n')
    assert len(find_images([str(tmp_path / "a.csv")], "path", tmp_path)) == 1
    assert "a.csv:3: a cell in quotes reads like rows of its own; is a quote not closed?" in caplog.text
    (tmp_path / "a.csv").write_text("path\na\0.jpg\n")
    with pytest.raises(UserError, match=r"a\.csv:2: path: must be the path of an image, not 'a\\x00\.jpg'"):
        find_images([str(tmp_path / "a.csv")], "path", tmp_path)


def test_what_is_left_out_of_a_folder_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jpg", "notes.txt", "photo", ".a.jpg", "._a.jpg", ".thumbs/a.jpg", "found/images/00001_a.png",
                 "found/detections.json", "images/b.jpg", "elsewhere/c.jpg"):  # fmt: skip
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "in" / "elsewhere").rename(tmp_path / "elsewhere")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "link" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.jpg").symlink_to("nowhere.jpg")
    with caplog.at_level(logging.INFO):
        found = files_of([tmp_path / "in"])
    names = [str(path.relative_to(tmp_path / "in")) for path in found]
    assert names == ["a.jpg", "gone.jpg", "images/b.jpg", "link/c.jpg"]
    first, hidden, second = caplog.messages
    assert first.startswith("--images: 3 files that are no images left out for their endings (1 x .json, 1 x .txt")
    assert hidden == f"--images: 3 hidden files and folders left out; the first: {tmp_path}/in/._a.jpg"
    assert second.startswith("--images: 1 folders images beside a detections.json, which predict has drawn,")
    (named,) = files_of([tmp_path / "in" / "found" / "images"])
    assert named.name == "00001_a.png"


def test_pictures_of_other_endings_pipes_and_links_upward_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "in" / "a.jfif", "jpeg")
    (tmp_path / "in" / "b.jpg").touch()
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    (tmp_path / "in" / "up").symlink_to("..")
    with caplog.at_level(logging.INFO):
        assert files_of([tmp_path / "in"]) == [tmp_path / "in" / "b.jpg"]
    links, images, pipes = caplog.messages
    assert links.startswith("--images: 1 links to folders that hold this one")
    assert images.startswith(f"--images: 1 images left out for their endings (1 x .jfif); the first: {tmp_path}/in/a")
    assert "can be read: name these files themselves" in images and "1 x .jpg" in pipes


def test_a_folder_that_cannot_be_read_is_not_called_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match=f"--images: {tmp_path} cannot be read: Permission denied"):
        files_of([tmp_path])


def test_names_of_a_table_are_found_however_they_are_spelt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "caf\u00e9").mkdir()
    (tmp_path / "caf\u00e9" / "A.jpg").touch()
    (tmp_path / "list.csv").write_text("path\ncafe\u0301\\a.JPG\ngone.jpg\n")
    found = find_images([str(tmp_path / "list.csv")], "path", tmp_path)
    assert found == [
        ("cafe\u0301\\a.JPG", tmp_path / "caf\u00e9" / "A.jpg"),
        ("gone.jpg", tmp_path / "gone.jpg"),
    ]
    assert "list.csv: 1 images are spelt otherwise" in caplog.text


def test_nothing_to_look_at_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--images: no images \(.jpg, .*\) in "):
        files_of([tmp_path])
    with pytest.raises(UserError, match="--images: there is no file or folder gone"):
        files_of([Path("gone")])
    (tmp_path / "cat_1.jpg").touch()
    with pytest.raises(UserError, match=r"no file or folder .*cat_l\.jpg; the nearest is 'cat_1\.jpg'"):
        files_of([tmp_path / "cat_l.jpg"])


def test_each_row_of_a_table_counts_and_files_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").touch()
    Path("list.CSV").write_text("path;x\na.jpg;1\ngone.jpg;2\na.jpg;3\n")
    found = find_images(["a.jpg", "list.CSV", "a.jpg"], "path", Path("root"), ";")
    rows = [("a.jpg", Path("root/a.jpg")), ("gone.jpg", Path("root/gone.jpg")), ("a.jpg", Path("root/a.jpg"))]
    assert found == [("a.jpg", Path("a.jpg")), *rows]
