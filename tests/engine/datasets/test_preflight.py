"""Broken images are found by their headers, a bounded number of files is opened."""

from __future__ import annotations

import numpy as np
import pytest

from engine.datasets.class_folders import open_folder
from engine.datasets.labelled import FileImages, open_digits
from engine.datasets.preflight import NAMED, broken_images, faults_of, missing_images
from engine.datasets.sections import CsvData, FolderData
from engine.images import file_check
from tests.classification.small import write_images


@pytest.fixture
def images(tmp_path) -> FileImages:
    write_images(tmp_path / "train", {"a": 10, "b": 10})
    return open_folder(FolderData(source="folder", root=tmp_path), "train")


def test_whole_images_pass(images):
    assert broken_images(images) == ""


def test_each_broken_one_is_named_with_its_fault(images):
    images.path(3).write_bytes(b"")
    images.path(19).write_text("<html>")
    first, second = broken_images(images).splitlines()
    assert first.startswith(f"{images.path(3)}: cannot be read as an image (it is empty)")
    assert second.startswith(f"{images.path(19)}: cannot be read as an image (cannot identify")


def test_many_are_counted(images):
    for index in range(8):
        images.path(index).write_bytes(b"x")
    lines = broken_images(images).splitlines()
    assert len(lines) == NAMED + 1
    assert lines[-1] == "and 3 more of the 20 images looked at"


def test_of_many_images_so_many_at_even_distances_are_opened(images, monkeypatch):
    monkeypatch.setattr(file_check, "LOOKED_AT", 5)
    assert list(file_check.look_at_some(len(images), lambda index: index)) == [0, 4, 8, 12, 16]
    for index in (1, 8):
        images.path(index).write_bytes(b"")
    (line,) = broken_images(images).splitlines()
    assert line.startswith(f"{images.path(8)}: ")


def test_listed_images_that_are_missing_are_counted_and_the_first_named(tmp_path, images):
    assert missing_images(images) == ""
    for index in range(0, 16, 2):
        images.path(index).unlink()
    first, *named, last = missing_images(images).splitlines()
    assert first.startswith("data: 8 of 20 images that are listed are not there (paths start from data.root, ")
    assert named == [f"{images.path(index)}: no such image" for index in (0, 2, 4, 6, 8)]
    assert last == "and 3 more"


def test_missing_folders_and_absolute_paths_count(tmp_path, images):
    paths = [str(images.path(0)), str(tmp_path / "c" / "0.jpg"), "train/a/001.jpg", "d/0.jpg"]
    listed = FileImages(tmp_path, ["a"], np.zeros(4, np.int64), paths)
    assert missing_images(listed).splitlines()[1:] == [
        f"{tmp_path}/c/0.jpg: no such image", f"{tmp_path}/d/0.jpg: no such image",
    ]  # fmt: skip


def test_faults_of_both_splits(tmp_path, images):
    folder = FolderData(source="folder", root=tmp_path)
    table = CsvData(source="csv", root=tmp_path, csv=tmp_path / "x.csv", label_columns=["x"])
    assert faults_of(table, images, images) == ""
    images.path(0).write_bytes(b"")
    assert faults_of(folder, images, images).startswith(f"{images.path(0)}: cannot be read as an image")
    images.path(1).unlink()
    assert faults_of(table, images, images).count("1 of 20 images that are listed are not there") == 2
    assert faults_of(folder, open_digits("train"), open_digits("val")) == ""
