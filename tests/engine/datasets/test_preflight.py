"""Broken pictures are found by their headers, a bounded number of files is opened."""

from __future__ import annotations

import numpy as np
import pytest

from engine.datasets.class_folders import open_folder
from engine.datasets.labelled import FilePictures, open_digits
from engine.datasets.preflight import NAMED, broken_pictures, faults_of, missing_pictures
from engine.datasets.sections import CsvData, FolderData
from engine.images import file_check
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
    assert len(lines) == NAMED + 1
    assert lines[-1] == "and 3 more of the 20 pictures looked at"


def test_of_many_pictures_so_many_at_even_distances_are_opened(pictures, monkeypatch):
    monkeypatch.setattr(file_check, "LOOKED_AT", 5)
    assert list(file_check.look_at_some(len(pictures), lambda index: index)) == [0, 4, 8, 12, 16]
    for index in (1, 8):
        pictures.path(index).write_bytes(b"")
    (line,) = broken_pictures(pictures).splitlines()
    assert line.startswith(f"{pictures.path(8)}: ")


def test_listed_pictures_that_are_missing_are_counted_and_the_first_named(tmp_path, pictures):
    assert missing_pictures(pictures) == ""
    for index in range(0, 16, 2):
        pictures.path(index).unlink()
    first, *named, last = missing_pictures(pictures).splitlines()
    assert first.startswith("data: 8 of 20 pictures that are listed are not there (paths start from data.root, ")
    assert named == [f"{pictures.path(index)}: no such picture" for index in (0, 2, 4, 6, 8)]
    assert last == "and 3 more"


def test_missing_folders_and_absolute_paths_count(tmp_path, pictures):
    paths = [str(pictures.path(0)), str(tmp_path / "c" / "0.jpg"), "train/a/001.jpg", "d/0.jpg"]
    listed = FilePictures(tmp_path, ["a"], np.zeros(4, np.int64), paths)
    assert missing_pictures(listed).splitlines()[1:] == [
        f"{tmp_path}/c/0.jpg: no such picture", f"{tmp_path}/d/0.jpg: no such picture",
    ]  # fmt: skip


def test_faults_of_both_splits(tmp_path, pictures):
    folder = FolderData(source="folder", root=tmp_path)
    table = CsvData(source="csv", root=tmp_path, csv=tmp_path / "x.csv", label_columns=["x"])
    assert faults_of(table, pictures, pictures) == ""
    pictures.path(0).write_bytes(b"")
    assert faults_of(folder, pictures, pictures).startswith(f"{pictures.path(0)}: cannot be read as a picture")
    pictures.path(1).unlink()
    assert faults_of(table, pictures, pictures).count("1 of 20 pictures that are listed are not there") == 2
    assert faults_of(folder, open_digits("train"), open_digits("val")) == ""
