"""Images in tar files: the same as in folders, whatever interrupts the packing."""

from __future__ import annotations

import errno
import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from detection.data.coco import CocoImages
from detection.data.open import check_data
from detection.data.open import open_images as open_annotated
from detection.data.sections import CocoData
from detection.data.sections import ShardData as BoxShards
from engine.data.batch_plan import BatchLayout, Draw, NaturalOrder
from engine.data.loaders import MicroBatchSampler, TrainLoader
from engine.data.unreadable import Patience, Troubles, UnreadableError
from engine.data.workers import WorkerSettings
from engine.datasets.dataset import ImageReader, open_images, prepare_on_all
from engine.datasets.labelled import digests
from engine.datasets.sections import FolderData, ShardData
from engine.datasets.shard_images import ShardImages
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.images.lazy_image import LazyImage
from engine.images.same_content import copies_between
from tests.detection.coco_files import box, write_split
from tests.distributed import clean_environment
from tests.mounts import with_tmpfs
from tools import pack
from tools.check.pictures import look_closely
from tools.pack import main

ALONE = Ranks(Layout(), torch.device("cpu"))


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is free on the disk of the tests is enough."""
    monkeypatch.setattr("engine.data.shards.SPARED", 0.0)


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    """The arguments that pack seven images of two classes, three a tar file."""
    random = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for number in range(count):
            name = f"{number}.x.{'png' if number else 'JPG'}"
            file = tmp_path / "data" / split / ("ant", "bee")[number % 2] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).save(file)
    config = tmp_path / "run.yaml"
    data = {"source": "folder", "root": str(tmp_path / "data")}
    config.write_text(yaml.safe_dump({"data": data, "model": {"name": "swin_tiny"}}))
    common = ["--task", "classification", "--config", str(config), "--workers", "1", "--shard-images", "3"]
    return [*common, "--output", str(tmp_path / "packed")]


def folder(tmp_path: Path) -> FolderData:
    return FolderData(source="folder", root=tmp_path / "data")


def packed(tmp_path: Path, **keys: Any) -> ShardData:
    return ShardData(source="shards", root=tmp_path / "packed", **keys)


def batches(images: Any, workers: int, start: int = 0, **settings: Any) -> list[dict[str, torch.Tensor]]:
    """Reads from a step on, with threads that read ahead; pixels and a number that follow from the draw's seed."""
    images._reader._worth = 0.0

    def transform(image: LazyImage, seed: int) -> torch.Tensor:
        return torch.from_numpy(image.pixels() ^ np.uint8(seed % 256))

    sampler = MicroBatchSampler(NaturalOrder(len(images), 2), BatchLayout(len(images), 2), 0, start, 4)
    workers_of = WorkerSettings(workers, read_threads=4, **settings)
    return [batch.data for batch in TrainLoader(ImageReader(images, transform, seed=1), sampler, workers_of)]


def same(ours: list[dict[str, torch.Tensor]], theirs: list[dict[str, torch.Tensor]]) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(
        mine.keys() == its.keys() and all(torch.equal(mine[key], its[key]) for key in its) for mine, its in pairs
    )


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_samples_are_the_same_from_shards_and_folders_with_any_workers_and_after_a_resume(
    tmp_path: Path, run: list[str], workers: int
) -> None:
    assert main(run) == 0
    for split in ("train", "val"):
        there, here = open_images(folder(tmp_path), split), open_images(packed(tmp_path), split)
        assert digests(there) == digests(here) and there.classes == here.classes
    expected = batches(open_images(folder(tmp_path), "train"), 0)
    assert len(expected) == 4 and {*expected[0]} == {"image", "label", "index", "epoch", "position"}
    for start in (0, 2):
        for data in (folder(tmp_path), packed(tmp_path)):
            assert same(batches(open_images(data, "train"), workers, start), expected[start:])


@pytest.mark.parametrize("layout", [folder, packed])
@pytest.mark.parametrize("workers", [0, 2])
def test_reads_that_fail_at_times_change_nothing_and_are_told(
    tmp_path: Path,
    run: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    layout: Callable[[Path], Any],
    workers: int,
) -> None:
    assert main(run) == 0
    expected, reads = batches(open_images(folder(tmp_path), "train"), 0), itertools.count(1)

    def at_times(function: Callable[..., Any]) -> Callable[..., Any]:
        def read(what: Any, *more: Any) -> Any:
            if (isinstance(what, int) or "/train/" in str(what)) and next(reads) % 3 == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return function(what, *more)

        return read

    images, troubles = open_images(layout(tmp_path), "train"), Troubles()
    monkeypatch.setattr("engine.data.unreadable.PAUSES", (0.001, 0.01))
    monkeypatch.setattr("engine.data.read_ahead.os.open", at_times(os.open))
    monkeypatch.setattr("engine.data.shards.os.pread", at_times(os.pread))
    assert same(batches(images, workers, patience=Patience(60.0), troubles=troubles), expected)
    assert troubles.retries > 0 and not troubles.unreadable
    assert "could not be read at once, the storage failed, and was tried again; 1 such so far" in caplog.text


def test_tar_and_readers_of_webdataset_see_keys_with_class_numbers(tmp_path: Path, run: list[str]) -> None:
    assert main(run) == 0
    assert sorted(path.name for path in (tmp_path / "packed").glob("*.tar")) == [
        "train-000000.tar",
        "train-000001.tar",
        "val-000000.tar",
    ]
    with tarfile.open(tmp_path / "packed" / "train-000001.tar") as tar:
        names = tar.getnames()
        assert names == ["000000003.png", "000000003.cls", "000000004.png", "000000004.cls"]
        stream = tar.extractfile("000000003.cls")
        assert stream is not None and stream.read() == b"1"
    first = digests(open_images(packed(tmp_path), "train"))[1]
    for index in (tmp_path / "packed").glob("*.safetensors"):
        index.unlink()
    (tmp_path / "packed" / "classes.txt").write_text("ant\nbee\n")
    assert main(run) == 0
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "packed").glob("*.safetensors")]
    assert modes == [(tmp_path / "run.yaml").stat().st_mode & 0o777] * 2, "others may read what they may read of tars"
    for index in (tmp_path / "packed").glob("*.safetensors"):
        index.unlink()
    images = open_images(packed(tmp_path), "train")  # as WebDataset's, which have none
    assert images.classes == ["ant", "bee"] and images.labels.tolist() == [0, 0, 0, 1, 1]
    known = open_images(folder(tmp_path), "train")
    assert all(np.array_equal(images.image(n).pixels(), known.image(n).pixels()) for n in range(5))
    assert first != digests(images)[1], "they are called otherwise"


def sample_tar(file: Path, *keys: str) -> None:
    """Writes a tar file as WebDataset has them, of an image with class 0 for each key."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for key in keys:
            for ending, content in ((".png", picture(key)), (".cls", b"0")):
                member = tarfile.TarInfo(f"{key}{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def picture(key: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (len(key), 0, 0)).save(stream, "png")
    return stream.getvalue()


def test_tars_that_come_later_are_seen_and_keys_that_come_twice(tmp_path: Path) -> None:
    sample_tar(tmp_path / "packed" / "train" / "0.tar", "a", "b")
    for path in ("packed/train/0.tar", "packed/train", "packed"):
        os.utime(tmp_path / path, (1e9, 1e9))
    assert len(open_images(packed(tmp_path), "train")) == len(open_images(packed(tmp_path), "train")) == 2
    sample_tar(tmp_path / "packed" / "train" / "1.tar", "c")
    assert len(open_images(packed(tmp_path), "train")) == 3
    sample_tar(tmp_path / "packed" / "train" / "2.tar", "d", "d")
    with pytest.raises(UserError, match=r"2\.tar: d\.png is there twice: give each sample a key of its own"):
        open_images(packed(tmp_path), "train")


def test_packing_goes_on_where_it_was_interrupted(
    tmp_path: Path, run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write = list[Path](), pack._content

    def counted(source: Path, *settings: Any) -> Any:
        written.append(source)
        if len(written) == 5:
            raise UserError("pulled the plug")
        return write(source, *settings)

    monkeypatch.setattr(pack, "_content", counted)
    monkeypatch.setattr(pack, "ProcessPoolExecutor", Inline)
    assert main(run) == 2
    assert [path.name for path in (tmp_path / "packed").glob("*.tar")] == ["train-000000.tar"]
    assert main(run) == 0 and len(written) == 5 + 2 + 2
    assert main(run) == 0 and len(written) == 9
    assert sorted(path.name for path in (tmp_path / "packed").iterdir() if path.name.startswith(".")) == []
    assert main([*run, "--short-side", "20"]) == 2, "other settings have a folder of their own"


class Inline:
    """Runs what a pool would, here."""

    def __init__(self, workers: int, initializer: object = None) -> None:
        pass

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, call: Callable[[Any], Any], job: Any) -> Future[Any]:
        future = Future[Any]()
        future.set_result(call(job))
        return future


def test_images_are_made_smaller_and_boxes_with_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(1, 101, [1, 2, 10, 20], area=100)])
    files: dict[str, Any] = {name: {"images": name, "annotations": f"{name}.json"} for name in ("train", "val")}
    before = open_annotated(CocoData(source="coco", root=tmp_path, **files), "train")
    side = int(before.annotations.sizes[0].min())
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"data": {"source": "coco", "root": str(tmp_path), **files}}))
    options = ["--short-side", str(side // 2), "--workers", "1", "--output", str(tmp_path / "packed")]
    assert main(["--task", "detection", "--config", str(config), *options]) == 0
    assert "train: boxes and areas are in pixels of the smaller images; AP_small" in capsys.readouterr().out
    after = open_annotated(BoxShards(source="shards", root=tmp_path / "packed"), "train")
    assert len(after) == len(before) and [after.name(n) for n in range(len(after))] == [
        before.name(n) for n in range(len(before))
    ]
    scale = after.annotations.sizes[0] / before.annotations.sizes[0]
    assert scale.max() <= 0.6
    np.testing.assert_allclose(after.annotations.boxes, before.annotations.boxes * np.tile(scale, 2))
    np.testing.assert_allclose(after.annotations.areas, before.annotations.areas * scale.prod())
    assert after.image(0).size == tuple(after.annotations.sizes[0].tolist())


def test_packed_images_with_boxes_are_looked_at_as_files_are(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(n, 100 + n, [1, 2, 10, 20], 2) for n in (1, 2, 3)])
    (tmp_path / "train" / "1.png").write_bytes(b"no image")
    shutil.copy(tmp_path / "train" / "0.png", tmp_path / "val" / "2.png")
    files: dict[str, Any] = {name: {"images": name, "annotations": f"{name}.json"} for name in ("train", "val")}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"data": {"source": "coco", "root": str(tmp_path), **files}}))
    command = ["--task", "detection", "--config", str(config), "--output", str(tmp_path / "packed")]
    assert main([*command, "data.max_unreadable=1"]) == 0
    shards = BoxShards(source="shards", root=tmp_path / "packed")
    unreadable, _, both = check_data(shards, 1.0)[1]
    assert unreadable.fatal and unreadable.ids == (102,) and "train-000000.tar:1.png: cannot be read" in unreadable.text
    assert not both.fatal and both.ids == (103,)
    assert both.text.endswith(
        "val-000000.tar:2.png has the content of " + str(tmp_path / "packed/train-000000.tar:0.png")
    )


def test_messages_of_images_with_boxes_name_the_copy_that_they_were_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(1, 101, [1, 2, 10, 20])])
    files: dict[str, Any] = {name: {"images": name, "annotations": f"{name}.json"} for name in ("train", "val")}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"data": {"source": "coco", "root": str(tmp_path), **files}}))
    assert main(["--task", "detection", "--config", str(config), "--output", str(tmp_path / "packed")]) == 0
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    images = open_annotated(BoxShards(source="shards", root=tmp_path / "packed"), "train")
    assert isinstance(images, CocoImages) and images.shards is not None
    images.shards.stage()
    _, offset, size = images.shards.piece(1)
    (copy,) = (tmp_path / "node").rglob("train-000000.tar")
    with copy.open("rb+") as file:
        file.seek(offset)
        file.write(bytes(size))
    with pytest.raises(
        UnreadableError, match=f"^{copy}:1.png .data.stage's copy of {tmp_path}/packed/train-000000.tar"
    ):
        images.image(1)


def test_shards_of_others_are_compared_by_what_is_in_them(tmp_path: Path, run: list[str]) -> None:
    shutil.copy(tmp_path / "data/train/ant/2.x.png", tmp_path / "data/val/ant/9.x.png")
    assert main(run) == 0
    opened = [open_images(packed(tmp_path), split) for split in ("train", "val")]
    for index in (tmp_path / "packed").glob("*.safetensors"):
        index.unlink()
    opened += [open_images(packed(tmp_path), split) for split in ("train", "val")]
    for train, val in (opened[:2], opened[2:]):
        assert isinstance(train, ShardImages) and isinstance(val, ShardImages)
        (pair,) = copies_between(train, val).pairs
        assert val.content(pair[0]) == train.content(pair[1])
    assert opened[0].digests is not None and opened[2].digests is None


def test_a_shard_that_is_missing_or_another_is_named(tmp_path: Path, run: list[str]) -> None:
    assert main(run) == 0
    shard = tmp_path / "packed" / "train-000000.tar"
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"train-000000.tar: has \d+ bytes"):
        open_images(packed(tmp_path), "train")
    shard.unlink()
    with pytest.raises(UserError, match=r"train-000000.tar: No such file"):
        open_images(packed(tmp_path), "train")


def test_copies_on_the_node_are_read_and_a_full_disk_does_no_harm(
    tmp_path: Path, run: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(run) == 0
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    images = open_images(packed(tmp_path), "train")
    assert isinstance(images, ShardImages)
    images.shards.stage()
    own = images.shards.on_node
    assert own is not None and len(list(own.glob("*.tar"))) == 2 and "stage" not in caplog.text
    read = images.shards.read(images.shards.piece(4))
    assert str(images.path(4)).startswith(f"{own}/train-000001.tar:{images.name(4)} "), "it is the copy that was read"
    for shard in own.glob("*.tar"):
        shard.unlink()

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.data.shards.shutil.copyfile", full)
    fresh = open_images(packed(tmp_path), "train")
    assert isinstance(fresh, ShardImages)
    fresh.shards.stage()
    assert "0 of 2 tar files were copied" in caplog.text and "train-000000.tar: No space left" in caplog.text
    assert fresh.shards.read(fresh.shards.piece(4)) == read


def staged(tmp_path: Path, run: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[ShardImages, Path]:
    """Packed training images, and the folder of their copies on the node."""
    assert main(run) == 0
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    images = open_images(packed(tmp_path), "train")
    assert isinstance(images, ShardImages)
    images.shards.stage()
    own = images.shards.on_node
    assert own is not None
    return images, own


@pytest.mark.parametrize("harm", ["EIO", "cut off later", "cut off before", "another", "removed"])
def test_a_bad_copy_is_named_and_removed_and_its_source_read(
    tmp_path: Path, run: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    images, own = staged(tmp_path, run, monkeypatch)
    expected, copy, pread = [images.content(number) for number in range(5)], own / "train-000000.tar", os.pread
    fresh = open_images(packed(tmp_path), "train")
    assert isinstance(fresh, ShardImages)
    if harm == "EIO":
        fresh.content(0)
        bad = copy.stat().st_ino

        def fails(descriptor: int, size: int, offset: int) -> bytes:
            if os.fstat(descriptor).st_ino == bad:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return pread(descriptor, size, offset)

        monkeypatch.setattr("engine.data.shards.os.pread", fails)
    elif harm == "cut off later":
        fresh.content(0)
        os.truncate(copy, 2000)
    elif harm == "cut off before":
        os.truncate(copy, 2000)
    elif harm == "another":
        copy.write_bytes(bytes(copy.stat().st_size))
    else:
        copy.unlink()
    assert [fresh.content(number) for number in range(5)] == expected
    told = [record.getMessage() for record in caplog.records if "data.stage" in record.getMessage()]
    if harm == "removed":
        assert not told, "it may never have been there"
        return
    (text,) = told
    source = tmp_path / "packed" / "train-000000.tar"
    assert f"the copy {copy} cannot be used" in text and f"it is removed; {source} is read instead" in text
    assert "pack" not in text.replace(str(tmp_path), "").replace("/packed", "") or harm == "another"
    assert not copy.exists() and (own / "train-000001.tar").exists()
    fresh.shards.stage()
    assert copy.read_bytes() == source.read_bytes()


def test_messages_of_images_name_the_copy_that_they_were_read_from(
    tmp_path: Path, run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, own = staged(tmp_path, run, monkeypatch)
    _, offset, size = images.shards.piece(1)
    with (own / "train-000000.tar").open("rb+") as file:
        file.seek(offset)
        file.write(bytes(size))
    source = tmp_path / "packed" / "train-000000.tar"
    text = rf"^{own}/train-000000.tar:ant/2.x.png \(data.stage's copy of {source}\): cannot be read as an image"
    with pytest.raises(UnreadableError, match=text):
        images.image(1).pixels()
    monkeypatch.delenv("SLURM_TMPDIR")
    fresh = open_images(packed(tmp_path), "train")
    assert fresh.image(1).pixels().any() and isinstance(fresh, ShardImages)
    assert fresh.path(1) == Path(f"{source}:ant/2.x.png")


def test_a_shard_of_equal_size_with_other_images_is_noticed(tmp_path: Path, run: list[str]) -> None:
    assert main(run) == 0
    images = open_images(packed(tmp_path), "train")
    assert isinstance(images, ShardImages)
    shard = tmp_path / "packed/train-000000.tar"
    kept = shard.read_bytes()
    content = bytearray(kept)
    _, offset, size = images.shards.piece(0)
    content[offset : offset + size] = bytes(size)
    shard.write_bytes(content)
    for opening in (lambda: open_images(packed(tmp_path), "train"), lambda: images.content(2)):
        with pytest.raises(UserError, match=r"train-000000.tar: is another tar file .*; pack the data anew"):
            opening()
    content = bytearray(kept)
    _, offset, size = images.shards.piece(2)
    content[offset : offset + size] = bytes(size)
    shard.write_bytes(content)
    changed = open_images(packed(tmp_path), "train")  # the first one is as it was
    assert isinstance(changed, ShardImages)
    text = r"data: 1 of 5 images are not those that were packed.*train-000000.tar:ant/4.x.png"
    assert any(re.match(text, error) for error in look_closely({"train": changed}, 5).errors)
    shard.write_bytes(kept)
    assert not look_closely({"train": changed}).errors


def test_what_a_shard_does_not_give_counts_image_by_image(
    tmp_path: Path, run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(run) == 0
    images, pread = open_images(packed(tmp_path), "train"), os.pread
    assert isinstance(images, ShardImages)
    bad = {images.shards.piece(number)[1] for number in (0, 1)}
    stale = list[int]()

    def fails(descriptor: int, size: int, offset: int) -> bytes:
        if offset in bad:
            stale.append(descriptor)
            raise OSError(errno.ESTALE, "Stale file handle")
        return pread(descriptor, size, offset)

    monkeypatch.setattr("engine.data.shards.os.pread", fails)
    reader = ImageReader(images, lambda image, seed: torch.from_numpy(image.pixels().copy()), seed=1)
    told = list[tuple[str, bool]]()
    samples = [Patience(max_unreadable=2).sample(reader, Draw(number, 0, number), told) for number in range(3)]
    assert [sample["index"] for sample in samples] == [2, 2, 2]
    assert len({file for file, skipped in told if skipped}) == 2 and all("train-000000.tar, byte" in f for f, _ in told)
    with pytest.raises(UnreadableError, match=r"train-000000.tar, byte \d+: cannot be read \(Stale"):
        reader[Draw(0, 0, 0)]
    bad.clear()
    assert reader[Draw(0, 0, 0)]["index"] == 0, "the tar file is opened anew"


def test_shards_are_staged_once_a_node_and_not_onto_a_disk_that_is_nearly_full(
    tmp_path: Path, run: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(run) == 0
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    prepare_on_all(packed(tmp_path, stage=True), ALONE)
    assert len(list((tmp_path / "node").rglob("*.tar"))) == 3
    shutil.rmtree(tmp_path / "node")
    monkeypatch.setattr("engine.data.shards.SPARED", 1.0)
    prepare_on_all(packed(tmp_path, stage=True), ALONE)
    assert not list((tmp_path / "node").rglob("*.tar")) and "0 of 2 tar files were copied" in caplog.text
    prepare_on_all(packed(tmp_path), ALONE)


STAGED = """
import logging, sys
from pathlib import Path
import numpy as np
from engine.datasets.dataset import open_images, prepare_on_all
from tests.tools.test_pack import ALONE, folder, packed
logging.basicConfig(format="%(message)s")
place = Path(sys.argv[1])
prepare_on_all(packed(place, stage=True), ALONE)
for split in ("train", "val"):
    theirs, ours = (open_images(data, split) for data in (folder(place), packed(place)))
    assert all(np.array_equal(ours.image(n).pixels(), theirs.image(n).pixels()) for n in range(len(ours)))
print(sorted(file.name for file in (place / "node").rglob("*.tar")), len([*(place / "node").rglob(".*")]))
"""


def test_as_many_shards_are_copied_as_a_small_disk_has_room_for(tmp_path: Path, run: list[str]) -> None:
    assert main(run) == 0
    (tmp_path / "node").mkdir()
    command = [*with_tmpfs(tmp_path / "node", "40k"), sys.executable, "-c", STAGED, str(tmp_path)]
    environment = {**clean_environment(), "SLURM_TMPDIR": str(tmp_path / "node"), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['train-000000.tar', 'val-000000.tar'] 0\n", done.stdout + done.stderr
    assert (
        "data.stage: 1 of 2 tar files were copied to" in done.stderr and "(5% of it) are left to others" in done.stderr
    )
    assert f"those that were not copied are read from {tmp_path / 'packed'}, which is slower" in done.stderr


def test_images_that_are_packed_anew_are_not_taken_for_their_old_copies(
    tmp_path: Path, run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(run) == 0
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    first = open_images(packed(tmp_path), "train")
    assert isinstance(first, ShardImages)
    first.shards.stage()
    file = tmp_path / "data" / "train" / "ant" / "2.x.png"
    Image.new("RGB", (30, 40)).save(file)
    shutil.rmtree(tmp_path / "packed")
    assert main(run) == 0
    second = open_images(packed(tmp_path), "train")
    assert isinstance(second, ShardImages) and second.shards.sizes == first.shards.sizes, "tar files are padded"
    assert any(not second.image(number).pixels().any() for number in range(5))


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-500])


@pytest.mark.parametrize("settings", [[], ["--short-side", "20"]])
def test_what_training_would_refuse_is_refused_and_packed_once_it_is_mended(
    tmp_path: Path, run: list[str], capsys: pytest.CaptureFixture[str], settings: list[str]
) -> None:
    ant, bee = tmp_path / "data/train/ant/2.x.png", tmp_path / "data/train/bee/3.x.png"
    kept = ant.read_bytes()
    cut_off(ant)
    bee.write_text("no image")
    assert main([*run, *settings, "data.max_unreadable=1"]) == 2
    said = capsys.readouterr().err
    assert "2 images of train cannot be used, more than the 1 of data.max_unreadable: training would refuse" in said
    assert f"{ant}: cannot be read as an image" in said and f"{bee}: cannot be read as an image" in said
    assert not (tmp_path / "packed" / "train.index.safetensors").exists()
    ant.write_bytes(kept)
    Image.new("RGB", (40, 30)).save(bee)
    assert main([*run, *settings]) == 0
    assert "cannot" not in "".join(capsys.readouterr())
    images = open_images(packed(tmp_path), "train")
    assert all(images.image(number).pixels().shape[2] == 3 for number in range(5))


def test_what_training_would_skip_is_told_and_packed_so_that_a_run_skips_the_same(
    tmp_path: Path, run: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off(tmp_path / "data/train/ant/2.x.png")
    (tmp_path / "data/test/ant").mkdir(parents=True)
    (tmp_path / "data/test/ant/a.png").write_text("no image")
    for _ in range(2):  # a finished one says so again
        assert main([*run, "data.max_unreadable=1"]) == 0
        said = capsys.readouterr().out
        skipped = (
            "train: 1 images cannot be used, and are packed as they are: a run skips them, as data.max_unreadable "
        )
        assert f"{skipped}allows:\n{tmp_path / 'data/train/ant/2.x.png'}: cannot be read as an image" in said
        assert "test: 1 images cannot be used, and are packed as they are: training reads none of test" in said
    found = []
    for data in (folder(tmp_path), packed(tmp_path)):
        images, troubles = open_images(data, "train"), Troubles()
        found.append(batches(images, 0, patience=Patience(max_unreadable=1), troubles=troubles))
        assert len(troubles.unreadable) == 1
    assert same(*found)


def test_an_image_of_val_that_is_damaged_is_never_packed(
    tmp_path: Path, run: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off(tmp_path / "data/val/ant/0.x.JPG")  # its header is fine
    assert main([*run, "data.max_unreadable=5"]) == 2
    assert "1 images of val cannot be used: training would refuse them" in capsys.readouterr().err


def test_images_of_another_size_than_their_boxes_are_for_are_not_packed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(1, 101, [1, 2, 10, 20])])
    with Image.open(tmp_path / "train" / "1.png") as image:
        image.resize((image.width * 2, image.height)).save(tmp_path / "train" / "1.png")
    files: dict[str, Any] = {name: {"images": name, "annotations": f"{name}.json"} for name in ("train", "val")}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"data": {"source": "coco", "root": str(tmp_path), **files}}))
    command = ["--task", "detection", "--config", str(config), "--output", str(tmp_path / "packed")]
    assert main([*command, "--short-side", "8", "--workers", "1"]) == 2, "boxes would be made smaller by a wrong factor"
    assert f"{tmp_path / 'train' / '1.png'}: has " in (said := capsys.readouterr().err)
    assert "pixels, but its annotations are for" in said


def test_processes_that_pack_end_with_a_command_that_is_killed(tmp_path: Path, run: list[str]) -> None:
    os.mkfifo(tmp_path / "endless")  # whoever reads it waits for whoever writes
    first = tmp_path / "data/train/ant/0.x.JPG"
    script = f"""
import sys
from pathlib import Path
from tools import pack
read = Path.read_bytes
Path.read_bytes = lambda path: Path({os.fspath(tmp_path / "endless")!r}).open("rb").read() if path == Path(
    {os.fspath(first)!r}) else read(path)
sys.exit(pack.main({run!r}))
"""
    command = subprocess.Popen([sys.executable, "-c", script], env={**clean_environment(), "PYTHONPATH": os.getcwd()})
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    with (tmp_path / "endless").open("wb"):  # goes on once a process waits
        packing = [int(pid) for pid in children.read_text().split()]
        assert packing and command.poll() is None
        command.kill()
        command.wait()
        end = time.monotonic() + 60
        while left := [pid for pid in packing if is_running(pid)]:
            assert time.monotonic() < end, f"{left} are still there"
            time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_arrays_in_memory_are_not_packed(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"data": {"source": "digits"}, "model": {"name": "swin_tiny"}}))
    assert main(["--task", "classification", "--config", str(config), "--output", str(tmp_path / "packed")]) == 2
