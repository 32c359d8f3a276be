"""``python -m tools.check``: what is there, what is wrong by its ids, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.classification.small import folder_data, write_config, write_pictures
from tests.detection.coco_files import box, write_split
from tools.check.__main__ import main


@pytest.fixture
def detection(tmp_path: Path) -> list[str]:
    """The command for a COCO data set in ``tmp_path``."""
    files = {split: {"images": split, "annotations": f"{split}.json"} for split in ("train", "val")}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"data": {"source": "coco", "root": str(tmp_path), **files}}))
    return ["--task", "detection", "--config", str(path)]


def test_good_data_are_counted(tmp_path, detection, capsys):
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(1, 101, [1, 2, 10, 20]), box(2, 102, [1, 2, 10, 20], iscrowd=1)])
    assert main(detection) == 0
    counts = "3 pictures (1 without objects), 1 objects of 3 classes, 1 crowd regions"
    unseen = f"{tmp_path}/train.json: 2 categories of which there is no object to learn from (ids: 7, 90)"
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"data: train: {counts}", f"data: val: {counts}", f"warning: {unseen}"
    ]  # fmt: skip


def test_all_ids_are_named(tmp_path, detection, capsys):
    for split in ("train", "val"):
        write_split(tmp_path, split, [box(1, 101, [1, 2, 10, 20]), *(box(n, 101, [1, 1, 0, 1]) for n in range(2, 52))])
    assert main(detection) == 0
    assert (
        f"50 boxes without width or height; left out (ids: {', '.join(map(str, range(2, 52)))})"
        in capsys.readouterr().out
    )


def test_everything_that_is_wrong_is_listed_by_its_ids(tmp_path, detection, capsys):
    bad = [
        box(11, 101, [3, 3, 0, 4]),
        box(12, 102, [3, 3, 4, -1]),
        box(13, 101, [float("nan"), 3, 4, 4]),
        box(14, 101, [50, 3, 4, 4]),
        box(15, 101, [30, 3, 20, 4]),
        box(16, 999, [1, 1, 4, 4]),
        box(17, 101, [1, 1, 4, 4], 3),
        box(18, 101, [1, 1, 4, 4]),
        box(18, 101, [1, 1, 4, 4]),
    ]
    write_split(tmp_path, "train", bad)
    write_split(tmp_path, "val", [], categories=[{"id": 2, "name": "lynx"}])
    document = json.loads((tmp_path / "train.json").read_text())
    document["images"].append({"id": 777, "file_name": "gone.png", "width": 40, "height": 30})
    document["images"][1]["width"] = 39
    (tmp_path / "train.json").write_text(json.dumps(document))
    (tmp_path / "train" / "2.png").write_bytes(b"no picture")
    assert main(detection) == 2
    out, err = capsys.readouterr()
    for text in (
        "2 boxes without width or height; left out (ids: 11, 12)",
        "1 boxes with NaN or infinity; left out (ids: 13)",
        "1 boxes that lie outside their picture; left out (ids: 14)",
        "1 boxes that reach out of their picture; clipped in training (ids: 15)",
        "1 boxes of pictures that are not listed; left out (ids: 16)",
        "1 annotation ids that occur more than once; all of their boxes are used (ids: 18)",
    ):
        assert f"warning: {tmp_path}/train.json: {text}" in out
    for text in (
        "train.json: 1 boxes of categories that are not listed (ids: 17)",
        f"train.json: 1 pictures that are not in {tmp_path}/train (ids: 777)",
        "train: 1 files that are no pictures (ids: 103)",
        "train: 1 pictures whose width and height are not those of their annotations (ids: 102)",
        "val.json: 3 categories differ from train's: 2: 'cat' in train, 'lynx' here",
    ):
        assert f"error: {tmp_path}/{text}" in err


def test_data_that_are_not_there(tmp_path, detection, capsys):
    assert main(detection) == 2
    errors = capsys.readouterr().err
    for split in ("train", "val"):
        assert f"error: data.{split}.images: there is no folder {tmp_path}/{split}" in errors


def test_a_mistake_in_the_configuration(detection, capsys):
    assert main([*detection, "optimizer.lrr=1"]) == 2
    assert "optimizer.lrr: unknown key" in capsys.readouterr().err


def test_classification_is_counted_too(tmp_path, capsys):
    assert main(["--task", "classification", "--config", str(write_config(tmp_path))]) == 0
    assert "data: train: 1437 pictures of 10 classes" in capsys.readouterr().out


def test_files_that_are_no_pictures_are_named_in_both_splits(tmp_path, capsys):
    for split in ("train", "val"):
        write_pictures(tmp_path / split, {"ant": 2, "bee": 2})
    (tmp_path / "train" / "ant" / "empty.png").write_bytes(b"")
    (tmp_path / "val" / "bee" / "text.png").write_text("no picture")
    config = write_config(tmp_path, data=folder_data(tmp_path))
    assert main(["--task", "classification", "--config", str(config)]) == 2
    errors = capsys.readouterr().err
    assert f"error: {tmp_path}/train/ant/empty.png: cannot be read as a picture" in errors
    assert f"error: {tmp_path}/val/bee/text.png: cannot be read as a picture" in errors
