"""Tar files as WebDataset has them: what is read of them, where their index lies, and what is said of wrong ones."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.index import FOLDER
from engine.datasets.labelled import odd_labels
from engine.datasets.sampling import build_order
from engine.datasets.sections import ShardData
from engine.datasets.shard_images import ShardImages, open_shards
from engine.errors import UserError

LONG_AGO = (1e9, 1e9)


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), (shade, 0, 0)).save(stream, "bmp")
    return stream.getvalue()


def write_tar(file: Path, members: Mapping[str, bytes], times: tuple[float, float] = LONG_AGO) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    os.utime(file, times)


def samples(*labels: int) -> dict[str, bytes]:
    return {
        name: content
        for number, label in enumerate(labels)
        for name, content in ((f"{number}.bmp", picture(label)), (f"{number}.cls", b"%d" % label))
    }


def opened(root: Path, split: str = "train") -> ShardImages:
    return open_shards(ShardData(source="shards", root=root), split)


@pytest.mark.parametrize("content", [b"1", b" 1\n"])
def test_classes_are_numbers_in_either_file(tmp_path: Path, content: bytes) -> None:
    write_tar(tmp_path / "train.tar", {"a.bmp": picture(0), "a.cls": content})
    assert opened(tmp_path).labels.tolist() == [1]


@pytest.mark.parametrize("text", ['{"label": 1}', '{"class_id": "1"}', '{"x": 0, "cls": 1}'])
def test_or_in_a_json(tmp_path: Path, text: str) -> None:
    write_tar(tmp_path / "train.tar", {"a.bmp": picture(0), "a.json": text.encode()})
    assert opened(tmp_path).labels.tolist() == [1]


WANTED = "where the number of its class is needed, from 0, as lines of classes.txt are counted"
FIRST_DOT = "keys end at the first dot: keep other dots out of the names of files"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.bmp": b"", "a.cls": b"cat"}, f"a has 'cat' in its .cls, {WANTED}"),
        ({"a.bmp": b"", "a.cls": b""}, f"a has '' in its .cls, {WANTED}"),
        ({"a.bmp": b"", "a.json": b'{"label": "cat"}'}, f'a has "cat" as label in its .json, {WANTED}'),
        ({"a.bmp": b"", "a.json": b'{"cls": 1.5}'}, f"a has 1.5 as cls in its .json, {WANTED}"),
        ({"a.bmp": b"", "a.json": b'{"caption": 1}'}, "its .json has none of the keys label, cls, class, class_id"),
        ({"a.bmp": b"", "a.json": b"[1]"}, "its .json has none of the keys label, cls, class, class_id"),
        ({"a.bmp": b"", "a.json": b"{"}, "a has a .json that cannot be read: Expecting property name"),
        ({"a.bmp": b""}, "a has no class: neither a .cls nor a .json"),
        ({"a.txt": b"", "a.cls": b"0"}, "a has no image (.jpg, .jpeg,"),
        ({"d.x/a.v2.bmp": b"", "d.x/a.v2.cls": b"0"}, "d.x/a has no image (.jpg, .jpeg, {}; it has d.x/a.v2.bmp, and "),
        (
            {"a.bmp": b"", "a.v2.cls": b"0"},
            f"neither a .cls nor a .json; it has a.v2.cls, and WebDataset's {FIRST_DOT}",
        ),
    ],
)
def test_what_is_wrong_with_a_sample_is_said_and_what_would_be_right(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    write_tar(tmp_path / "train.tar", members)
    with pytest.raises(UserError) as caught:
        opened(tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'train.tar'}: ")
    assert all(part in text for part in message.split("{}")), text


def test_a_class_beyond_the_known_ones_is_named(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    write_tar(tmp_path / "train.tar", samples(0, 1))
    write_tar(tmp_path / "val.tar", samples(0, 2))
    with pytest.raises(UserError, match=r"val has images of class 2; .* 0 to 1, as there are 2 lines of classes"):
        opened(tmp_path, "val")
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"val has images of class 2; .* as there are 2 classes of train"):
        opened(tmp_path, "val")


def test_the_index_lies_beside_the_data_and_is_made_anew_where_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.index.SETTLED_SECONDS", -5.0)  # as if the files were older
    write_tar(tmp_path / "train.tar", samples(0, 1))
    write_tar(tmp_path / "val.tar", samples(0, 1))
    os.utime(tmp_path, LONG_AGO)
    first = opened(tmp_path)
    assert opened(tmp_path, "val").classes == ["0", "1"]
    assert len([*(tmp_path / FOLDER).glob("*.safetensors")]) == 2
    write_tar(tmp_path / "train.tar", samples(2, 1), (2e9, 2e9))  # of equal size
    with pytest.raises(UserError, match=r"train\.tar: has changed since its index was made; start again"):
        first.image(0)
    assert opened(tmp_path).labels.tolist() == [2, 1]
    assert opened(tmp_path, "val").classes == ["0", "1", "2"], "they are those of train"


def test_classes_without_images_are_told_and_no_harm(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    write_tar(tmp_path / "train.tar", samples(0, 2, 2))
    write_tar(tmp_path / "val.tar", samples(2, 0))
    train, val = opened(tmp_path), opened(tmp_path, "val")
    assert odd_labels(train, val) == ["data: no training images of 2 of 4 classes: bee, dog"]
    for keys in ({"sampling": "balanced"}, {"sampling": "square_root"}, {"oversample": 1.0}, {}):
        order = build_order(ShardData(source="shards", root=tmp_path, **keys), train, 0)
        assert len(order(0)) == order.num_samples and {*order(0).tolist()} <= {0, 1, 2}
    assert np.array_equal(train.image(1).pixels()[0, 0], [2, 0, 0])


@pytest.mark.parametrize("left", [".train-000001.tar.part", ".train-000002.tar.0123456789ab"])
def test_what_an_interrupted_packing_has_left_is_no_data_set(left: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "train-000000.tar", samples(0, 1))
    assert len(opened(tmp_path)) == 2
    (tmp_path / left).touch()
    with pytest.raises(UserError, match=r"the packing of train is not finished: call tools\.pack as before"):
        opened(tmp_path)
