"""Broken pictures are found by their headers, a bounded number of files is opened."""

from __future__ import annotations

import pytest

from classification import first_look
from classification.data_config import FolderData
from classification.files import FilePictures
from classification.first_look import broken_pictures
from classification.folders import open_folder
from tests.classification.small import write_pictures


@pytest.fixture
def pictures(tmp_path) -> FilePictures:
    write_pictures(tmp_path / "train", {"a": 10, "b": 10})
    return open_folder(FolderData(source="folder", root=tmp_path), "train")


def test_whole_pictures_pass(pictures):
    assert broken_pictures(pictures) == ""


def test_each_broken_one_is_named_with_its_fault(pictures):
    pictures.path(3).write_bytes(b"")
    pictures.path(19).write_text("<html>")
    first, second = broken_pictures(pictures).splitlines()
    assert first.startswith(f"{pictures.path(3)}: cannot be read as a picture (it is empty)")
    assert second.startswith(f"{pictures.path(19)}: cannot be read as a picture (cannot identify")


def test_many_are_counted(pictures):
    for index in range(8):
        pictures.path(index).write_bytes(b"x")
    lines = broken_pictures(pictures).splitlines()
    assert len(lines) == first_look.NAMED + 1
    assert lines[-1] == "and 3 more of the 20 pictures looked at"


def test_of_many_pictures_so_many_at_even_distances_are_opened(pictures, monkeypatch):
    monkeypatch.setattr(first_look, "LOOKED_AT", 5)
    looked_at = []
    monkeypatch.setattr(first_look, "_opens", lambda path: looked_at.append(path) or True)
    assert broken_pictures(pictures) == ""
    assert sorted(looked_at) == [pictures.path(index) for index in (0, 4, 8, 12, 16)]
