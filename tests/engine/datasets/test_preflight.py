"""Broken images are found by their headers, a bounded number of files is opened."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from PIL import Image

from engine.data import file_check
from engine.datasets.class_folders import open_folder
from engine.datasets.labelled import FileImages, open_digits
from engine.datasets.preflight import NAMED, broken_images, faults_of, located, warn_of_likenesses
from engine.datasets.sections import FolderData
from engine.errors import UserError
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


def test_images_that_would_be_refused_when_they_are_read_are_broken_ones(images):
    Image.new("F", (8, 8)).save(images.path(2), "TIFF")
    Image.new("RGB", (8, 8)).save(images.path(3), "EPS")
    first, second = broken_images(images).splitlines()
    assert "floating-point pixels" in first and "a file of the format EPS; convert it to PNG" in second


def test_huge_ones_are_counted_and_the_largest_named(images, monkeypatch, caplog):
    assert not broken_images(images) and not caplog.messages
    monkeypatch.setattr("engine.datasets.preflight.HUGE", 399)
    Image.new("L", (21, 20)).save(images.path(7))
    assert not broken_images(images)
    assert "data: 20 images have more than 0 million pixels" in caplog.text and f": {images.path(7)};" in caplog.text


def test_what_the_storage_does_not_give_for_a_moment_is_no_fault(images, monkeypatch):
    def fails(source):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))

    opened, failed = os.open, []

    def open_(path, *more, **keys):
        if str(path) == str(images.path(3)) and len(failed) < times:
            failed.append(path)
            fails(path)
        return opened(path, *more, **keys)

    monkeypatch.setattr("engine.data.file_check.PAUSES", (0.0, 0.0))
    monkeypatch.setattr("engine.datasets.preflight.open_image", fails)
    monkeypatch.setattr("engine.data.read_ahead.os.open", open_)
    times = 2
    assert broken_images(images) == "" and len(failed) == 2
    times = 1000
    assert broken_images(images).startswith(
        f"{images.path(3)}: cannot be read (Input/output error): the storage failed"
    )


def test_a_listing_that_the_storage_breaks_off_is_none(tmp_path, images, monkeypatch):
    scandir = os.scandir

    def fails(path="."):
        if str(path).endswith("/b"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(UserError, match=r"data\.root: .*/train/b cannot be read: Stale file handle"):
        open_folder(FolderData(source="folder", root=tmp_path), "train")


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
    assert located(images).missing == ""
    for index in range(0, 16, 2):
        images.path(index).unlink()
    first, *named, last = located(images).missing.splitlines()
    assert first.startswith("data: 8 of 20 images that are listed are not there (paths start from data.root, ")
    assert [line.partition(";")[0] for line in named] == [
        f"{images.path(index)}: no such image" for index in (0, 2, 4, 6, 8)
    ]
    assert named[0].endswith("; the nearest is '009.jpg'")
    assert last == "and 3 more"


def test_so_few_training_images_as_may_be_skipped_are_told_and_no_fault(images, caplog):
    images.path(3).write_bytes(b"")
    whole = images.subset(np.array([1, 2]))
    assert "it is empty" in faults_of(images, whole) and not caplog.messages
    assert faults_of(images, whole, 1) == ""
    assert "it is empty" in caplog.text and "skipped, as data.max_unreadable=1 allows" in caplog.text
    assert "it is empty" in faults_of(whole, images, 1), "of val none is left out"
    images.path(3).write_bytes(images.path(6).read_bytes())
    images.path(4).unlink()
    for allowed in (0, 1):
        assert ("no such image" in faults_of(located(images), whole, allowed)) == (allowed == 0)
    images.path(5).unlink()
    assert "2 of 20 images" in faults_of(located(images), whole, 1)


def test_missing_folders_and_absolute_paths_count(tmp_path, images):
    paths = [str(images.path(0)), str(tmp_path / "c" / "0.jpg"), "train/a/001.jpg", "d/0.jpg"]
    listed = FileImages(tmp_path, ["a"], np.zeros(4, np.int64), paths)
    assert located(listed).missing.splitlines()[1:] == [
        f"{tmp_path}/c/0.jpg: no such image", f"{tmp_path}/d/0.jpg: no such image",
    ]  # fmt: skip


def test_faults_of_both_splits(images):
    assert faults_of(images, images) == faults_of(open_digits("train"), open_digits("val")) == ""
    images.path(0).write_bytes(b"")
    assert faults_of(images, images).startswith(f"{images.path(0)}: cannot be read as an image")
    images.path(1).unlink()
    images = located(images)
    assert faults_of(images, images).count("1 of 20 images that are listed are not there") == 2


def test_listed_images_are_found_however_they_are_spelt(tmp_path, images, caplog):
    (tmp_path / "train" / "a" / "000.jpg").rename(tmp_path / "train" / "a" / "caf\u00e9.jpg")
    listed = FileImages(tmp_path, ["a"], np.zeros(2, np.int64), ["train/a/cafe\u0301.jpg", "train\\b\\001.JPG"])
    found = located(listed)
    assert [*found.names] == ["train/a/caf\u00e9.jpg", "train/b/001.jpg"] and not found.missing
    assert caplog.messages == [
        "data: 2 images are spelt otherwise than the one file that each can mean, which is taken, such as "
        r"'train/a/cafe\u0301.jpg' for 'train/a/caf\xe9.jpg'"
    ]


def test_a_folder_that_cannot_be_read_is_called_so(images, monkeypatch):
    def listdir(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("engine.images.file_names.os.listdir", listdir)
    (first, second) = located(FileImages(images.root, ["a"], images.labels, images.names)).missing.splitlines()
    assert first == f"data: {images.root}/a cannot be read: Permission denied" and second.startswith("data: ")


def copied(source, target) -> None:
    target.parent.mkdir(exist_ok=True, parents=True)
    target.write_bytes(source.read_bytes())


def test_images_of_val_that_are_in_train_and_of_two_classes_are_told(tmp_path, images, caplog):
    write_images(tmp_path / "val", {"a": 3, "b": 3}, seed=1)
    folder = FolderData(source="folder", root=tmp_path)
    warn_of_likenesses(open_folder(folder, "train"), open_folder(folder, "val"))
    assert caplog.messages == []
    copied(images.path(2), tmp_path / "val" / "b" / "other.jpg")
    (tmp_path / "val" / "a" / "linked.jpg").symlink_to(images.path(0))
    (tmp_path / "train" / "a" / "linked.jpg").symlink_to("../b/001.jpg")
    warn_of_likenesses(open_folder(folder, "train"), open_folder(folder, "val"))
    between, across = caplog.messages
    assert between.startswith("data: 2 of 8 images of val are in train as well, with the same content: ")
    assert between.endswith(f"; the first: {tmp_path}/val/a/linked.jpg is {images.path(0)}")
    told = f"the first: {tmp_path}/train/a/linked.jpg and {tmp_path}/train/b/001.jpg"
    assert across == f"data: 1 training images are in several classes, with the same content; {told}"


def test_classes_that_look_alike_are_told_with_their_images(tmp_path, caplog):
    write_images(tmp_path / "train", {"cat": 2, "Cat": 3, "dog": 1})
    train = open_folder(FolderData(source="folder", root=tmp_path), "train")
    warn_of_likenesses(train, open_digits("val"))
    (told,) = caplog.messages
    assert "2 classes look like others" in told
    assert "'Cat' (3 training images, such as Cat/000.jpg) and 'cat' (2 training images, such as cat/000.jpg)" in told
