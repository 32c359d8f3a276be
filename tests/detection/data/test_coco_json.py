"""Files that are read as columns, and record by record."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from detection.data import coco_json
from detection.data.coco import read_split
from tests.detection.coco_files import box, coco_data, write_split


def test_both_ways_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [
        box(1, 103, [1, 2, 10, 20], 90, area=7.5),
        box(2, 101, [1.5, 2, 100, 4], 7, iscrowd=1),
        box(3, 101, [1, 2, 0, 4], 7),
        box(4, 102, [1, 2, 3, 4], 2, area=0, iscrowd=2),
        box(5, 102, [90, 2, 3, 4], 2),
    ]
    write_split(tmp_path, "train", boxes)
    data, typed = coco_data(tmp_path), coco_json._typed
    assert typed(tmp_path / "train.json") is not None
    fast, told = read_split(data, "train")
    monkeypatch.setattr(coco_json, "_typed", lambda file: None)
    slow, told_then = read_split(data, "train")
    assert told == told_then and len(told) >= 4
    for field in dataclasses.fields(fast.annotations):
        ours, theirs = (getattr(images.annotations, field.name) for images in (fast, slow))
        assert np.array_equal(ours, theirs) and getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)


@pytest.mark.parametrize(
    "odd",
    [{"bbox": [1, 2, 3, "4"]}, {"id": "a"}, {"image_id": 101.5}, {"iscrowd": True}, {"area": "large"}],
)
def test_what_is_not_as_usual_is_read_record_by_record(tmp_path: Path, odd: dict[str, object]) -> None:
    write_split(tmp_path, "train", [{**box(1, 101, [1, 2, 3, 4]), **odd}])
    assert coco_json._typed(tmp_path / "train.json") is None
    assert isinstance(coco_json.load(tmp_path / "train.json").annotations, list)


def test_a_key_that_seems_to_come_twice_is_looked_into(tmp_path: Path) -> None:
    write_split(tmp_path, "train", [box(1, 101, [1, 2, 3, 4])])
    file = tmp_path / "train.json"
    file.write_text(file.read_text().replace('"bbox"', '"bbox": [0, 0, 1, 1], "bbox"'))
    assert coco_json._typed(file) is None
