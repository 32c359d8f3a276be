"""Listings that are made once."""

from __future__ import annotations

import json
import logging
import os
import pickle
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detection.data.open import open_images as open_annotated
from detection.data.sections import CocoData
from diffusion.data.open import open_split
from diffusion.data.sections import ImagesSource
from engine.data import index
from engine.data.index import FOLDER, forget
from engine.datasets.dataset import open_images
from engine.datasets.labelled import FileImages, digests
from engine.datasets.sections import CsvData, FolderData, TorchvisionData
from tests.engine.datasets.test_torchvision_sets import fake_food101

CLASSES = ("ant", "bee\udcff", "Käfer")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in class folders, with a table and a COCO file of them; what has changed counts as settled at once."""
    monkeypatch.setattr(index, "SETTLED_SECONDS", -1.0)
    monkeypatch.setenv("SWIN_HPC_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data"
    for split, count in (("train", 4), ("val", 2)):
        for name in CLASSES:
            for number in range(count):
                file = root / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 6), (number, 0, 0)).save(file)
    (root / "train" / "ant" / "notes.txt").touch()
    rows = [f"train/ant/{n}.png,ant,train\n" for n in range(4)] + [f"val/ant/{n}.png,ant,val\n" for n in range(2)]
    (root / "table.csv").write_text("file,kind,split\n" + "".join(rows))
    for split, count in (("train", 4), ("val", 2)):
        images = [{"id": n, "file_name": f"ant/{n}.png", "width": 8, "height": 6} for n in range(count)]
        boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 4, 20]} for n in range(count)]
        document = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "ant"}]}
        (root / f"{split}.json").write_text(json.dumps(document))
    return root


def folder(root: Path, **keys: Any) -> FolderData:
    return FolderData(source="folder", root=root, **keys)


def table(root: Path) -> CsvData:
    keys: dict[str, Any] = {"path_column": "file", "label_columns": ["kind"], "split_column": "split"}
    return CsvData(source="csv", root=root, csv=root / "table.csv", **keys)


def coco(root: Path) -> CocoData:
    splits: dict[str, Any] = {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")}
    return CocoData(source="coco", root=root, **splits)


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All folders that are listed, and files that are opened for reading as text or JSON."""
    seen = list[str]()
    scandir, listdir = os.scandir, os.listdir
    monkeypatch.setattr(os, "scandir", lambda path=".": (seen.append(os.fspath(path)), scandir(path))[1])
    monkeypatch.setattr(os, "listdir", lambda path=".": (seen.append(os.fspath(path)), listdir(path))[1])
    return seen


def known(images: FileImages) -> tuple[Any, ...]:
    return list(images.names), images.classes, images.labels.tolist(), images.root, digests(images), images.missing


@pytest.mark.parametrize("source", [folder, table])
def test_the_second_start_lists_nothing(root: Path, listings: list[str], source: Any) -> None:
    data = source(root)
    first = [known(open_images(data, split)) for split in ("train", "val")]
    assert listings
    listings.clear()
    again = [open_images(data, split) for split in ("train", "val")]
    assert listings == []
    assert [known(images) for images in again] == first
    assert len(again[0]) > len(again[1]) > 0


def test_so_does_that_of_boxes_and_of_images_without_classes(
    root: Path, listings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    images = ImagesSource(source="images", root=root / "train" / "ant", val_fraction=0.25)
    first = open_annotated(coco(root), "train"), open_split(images, "val")
    told, listings[:] = caplog.messages[:], []
    caplog.clear()
    again = open_annotated(coco(root), "train"), open_split(images, "val")
    assert listings == [] and caplog.messages == told and "partly_outside" not in told
    assert any("reach out of their image" in text for text in told)
    for name in ("boxes", "labels", "starts", "sizes", "crowd", "areas", "image_ids"):
        assert np.array_equal(getattr(first[0].annotations, name), getattr(again[0].annotations, name))
    assert [first[0].name(2), first[1].name(0)] == [again[0].name(2), again[1].name(0)]
    assert not (root / "train" / "ant" / FOLDER).exists(), "in a folder that is listed it would change it"


def test_named_sets_in_files_are_listed_once(
    tmp_path: Path, listings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SETTLED_SECONDS", -1.0)
    fake_food101(tmp_path)
    data = TorchvisionData(source="food101", root=tmp_path, val_fraction=0.25)
    first = [known(open_images(data, split)) for split in ("train", "val", "test")]
    listings.clear()
    assert [known(open_images(data, split)) for split in ("train", "val", "test")] == first and listings == []
    (tmp_path / "food-101" / "meta" / "new").touch()
    open_images(data, "train")
    assert listings


def test_what_was_left_out_is_told_again(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    open_images(folder(root), "train")
    told = caplog.messages[:]
    caplog.clear()
    open_images(folder(root), "train")
    assert caplog.messages == told and any(".txt" in text for text in told)


def test_a_folder_that_has_changed_is_listed_alone(root: Path, listings: list[str]) -> None:
    for split in ("train", "val"):
        open_images(folder(root), split)
    Image.new("RGB", (8, 6)).save(root / "val" / "ant" / "new.png")
    listings.clear()
    assert len(open_images(folder(root), "train")) == 12 and listings == []
    images = open_images(folder(root), "val")
    assert "ant/new.png" in list(images.names) if isinstance(images, FileImages) else False
    assert listings and not any(str(root / "train" / name) in listings for name in CLASSES)


@pytest.mark.parametrize("change", ["table.csv", "train/ant/gone"])
def test_a_table_or_a_folder_of_its_images_that_has_changed_is_read_anew(root: Path, change: str) -> None:
    assert len(open_images(table(root), "train")) == 4
    if change == "table.csv":
        with (root / change).open("a") as file:
            file.write("train/bee\udcff/0.png,bee,train\n".replace("\udcff", ""))
    else:
        (root / "train" / "ant" / "3.png").unlink()
    images = open_images(table(root), "train")
    assert isinstance(images, FileImages) and "no such image" in images.missing


def test_a_val_that_comes_later_is_seen(root: Path) -> None:
    (root / "val").rename(root / "elsewhere")
    data = folder(root, val_fraction=0.25)
    assert len(open_images(data, "val")) == 3
    (root / "elsewhere").rename(root / "validation")
    with pytest.raises(Exception, match="has a val of its own"):
        open_images(data, "val")


def test_what_may_still_be_changing_is_not_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "SETTLED_SECONDS", 3600.0)
    open_images(folder(root), "train")
    assert not (root / FOLDER).exists()


@pytest.mark.parametrize(("hours", "settled", "kept"), [(1, 2.0, False), (-1, -1.0, True)])
def test_a_servers_clock_may_differ_from_ours(
    root: Path, monkeypatch: pytest.MonkeyPatch, hours: int, settled: float, kept: bool
) -> None:
    """Files have just been made, by its clock; by ours an hour ago, or in an hour."""
    monkeypatch.setattr(index, "SETTLED_SECONDS", settled)
    monkeypatch.setattr(index, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + hours * 3600 * 10**9))
    open_images(folder(root), "train")
    assert [*(root / FOLDER).glob("*")] == [] if not kept else len([*(root / FOLDER).glob("*")]) == 1


@pytest.mark.parametrize("cause", ["denied", "elsewhere"])
def test_of_a_server_with_a_clock_that_nobody_knows_only_older_folders_are_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    def denied(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    if cause == "denied":
        monkeypatch.setattr(index.tempfile, "TemporaryFile", denied)
    else:
        monkeypatch.setattr(index, "_stats", other_device(index._stats))
    open_images(folder(root), "train")
    assert not (root / FOLDER).exists()
    monkeypatch.setattr(index, "OTHER_CLOCKS", -1.0)
    open_images(folder(root), "train")
    assert (root / FOLDER).exists()


def other_device(stats: Any) -> Any:
    """Returns what finds all on another file system."""
    names = ("st_mtime_ns", "st_ctime_ns", "st_size")

    def found(paths: list[str]) -> list[SimpleNamespace | None]:
        return [
            each and SimpleNamespace(st_dev=-1, **{name: getattr(each, name) for name in names})
            for each in stats(paths)
        ]

    return found


def test_reindex_lists_anew(root: Path, listings: list[str]) -> None:
    open_images(folder(root), "train")
    forget(root)
    listings.clear()
    open_images(folder(root), "train")
    assert str(root / "train" / "ant") in listings


def test_where_the_data_cannot_be_written_the_index_lies_in_the_users_cache(
    root: Path, listings: list[str], tmp_path: Path
) -> None:
    (root / FOLDER).touch()  # no folder can be made of that name
    open_images(folder(root), "train")
    listings.clear()
    images = open_images(folder(root), "train")
    assert listings == [] and list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(pickle.dumps(images)) > len(pickle.dumps(images.labels)), "other nodes need not see the cache"
    forget(root)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_other_ranks_map_the_index_and_a_damaged_one_is_made_anew(root: Path) -> None:
    first = known(open_images(folder(root), "train"))
    images = open_images(folder(root), "train")
    sent = pickle.dumps(images, 5)
    assert len(sent) < 500 and known(pickle.loads(sent)) == first
    (file,) = (root / FOLDER).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RuntimeError, match="start again"):
        pickle.loads(sent)
    assert known(open_images(folder(root), "train")) == first


def test_the_users_cache_lies_where_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIN_HPC_CACHE", "/own")
    assert index.index_folders(tmp_path) == [tmp_path / ".swin-hpc", Path("/own")]
    monkeypatch.delenv("SWIN_HPC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert index.index_folders(tmp_path)[1:] == [Path("/caches/swin-hpc")]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert index.index_folders(tmp_path)[1:] == [Path("/home/me/.cache/swin-hpc")]
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert index.index_folders(tmp_path) == [tmp_path / ".swin-hpc"], "the system knows of no home"
