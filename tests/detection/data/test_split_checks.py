"""What shows only where splits are looked at beside each other."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from detection.data.coco import CocoImages, read_split
from detection.data.issues import Finding
from detection.data.open import check_data, look_first
from detection.data.sections import CocoData
from detection.data.split_checks import check_splits
from engine.errors import UserError
from tests.detection.coco_files import CATEGORIES, box, coco_data, write_split

GOOD = [1, 2, 10, 20]
ALL = [box(1, 101, GOOD, 2), box(2, 102, GOOD, 7), box(3, 103, GOOD, 90)]


def written(root: Path, train: Any = ALL, val: Any = ALL, **data: Any) -> tuple[CocoData, dict[str, CocoImages]]:
    """A data set whose splits have these annotations, or lists of other things."""
    for split, content in (("train", train), ("val", val)):
        write_split(root, split, **(content if isinstance(content, dict) else {"annotations": content}))
    config = coco_data(root, **data)
    return config, {split: read_split(config, split)[0] for split in ("train", "val")}


def kinds(findings: list[Finding]) -> dict[str, tuple]:
    return {finding.kind: finding.ids for finding in findings}


def test_nothing_is_wrong_with_good_splits(tmp_path: Path) -> None:
    assert not check_splits(*written(tmp_path), least=1.0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([*CATEGORIES[:2], {"id": 90, "name": "hen"}], "90: 'owl' in train, 'hen' here"),
        (CATEGORIES[:2], "90: 'owl' in train, None here"),
        ([*CATEGORIES[:2], {"id": 90, "name": "\u043ewl"}], r"90: 'owl' in train, '\\u043ewl' here"),
        ([*CATEGORIES, {"id": 3, "name": "hen"}], "3: None in train, 'hen' here"),
    ],
)
def test_splits_with_other_categories_are_refused(tmp_path: Path, other: list, message: str) -> None:
    config, opened = written(tmp_path, val={"annotations": ALL[:1], "categories": other})
    with pytest.raises(UserError, match=message):
        look_first(opened, config, 1.0)
    assert [finding.kind for finding in check_data(config, 1.0)[1]] == ["different_categories"]


def test_categories_in_another_order_are_the_same(tmp_path: Path) -> None:
    assert not check_splits(*written(tmp_path, val={"annotations": ALL, "categories": CATEGORIES[::-1]}), least=1.0)


def test_training_without_objects_is_refused(tmp_path: Path) -> None:
    crowds = [box(1, 101, GOOD, iscrowd=1)]
    config, opened = written(tmp_path, train=crowds)
    with pytest.raises(UserError, match=r"train\.json: there is no object to learn from"):
        look_first(opened, config, 1.0)


def test_an_evaluation_without_objects_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, opened = written(tmp_path, val=[])
    with caplog.at_level(logging.WARNING):
        look_first(opened, config, 1.0)
    assert "val.json: there is no object to find" in caplog.text


def test_categories_without_objects_are_named(tmp_path: Path) -> None:
    crowd = {**ALL[2], "iscrowd": 1}
    assert kinds(check_splits(*written(tmp_path, train=[ALL[1], crowd]), least=1.0)) == {"never_seen": (2, 90)}


def test_objects_that_are_too_small_to_be_trained_on_are_told(tmp_path: Path) -> None:
    boxes = [*ALL, box(4, 102, [1, 1, 3, 10]), box(5, 103, [1, 1, 10, 3]), box(6, 101, [1, 1, 2, 2], iscrowd=1)]
    config, opened = written(tmp_path, train=boxes, image_size=(30, 80))  # 40 x 30 pixels are stretched to the sides
    assert kinds(check_splits(config, opened, least=3.5)) == {"too_small": (103,)}
    (finding,) = check_splits(config, opened, least=7)
    assert finding.ids == (102, 103)
    assert kinds(check_splits(config, opened, least=99)) == {"no_objects": (), "too_small": (101, 102, 103)}
    assert "less than 7 pixels on a side at the model's size (30 x 80)" in str(finding)


def test_images_in_both_splits_are_named(tmp_path: Path) -> None:
    config, opened = written(tmp_path, val={"annotations": ALL})
    assert not check_splits(config, opened, least=1.0)  # files of one name in two folders are two images
    same = coco_data(tmp_path, val={"images": "./train/", "annotations": "val.json"})
    opened = {split: read_split(same, split)[0] for split in ("train", "val")}
    assert kinds(check_splits(same, opened, least=1.0)) == {"in_both": (101, 102, 103)}


def test_copies_of_training_images_are_named_under_any_name(tmp_path: Path) -> None:
    config, opened = written(tmp_path)
    (tmp_path / "val" / "2.png").write_bytes((tmp_path / "train" / "0.png").read_bytes())
    (finding,) = check_splits(config, opened, least=1.0)
    assert (finding.kind, finding.ids) == ("in_both", (103,))
    assert finding.text.endswith(f"{tmp_path}/val/2.png has the content of {tmp_path}/train/0.png")


def test_files_that_may_not_be_read_are_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, opened = written(tmp_path)

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("engine.images.image_io.Image.open", denied)
    found = [finding for finding in check_splits(config, opened, least=1.0) if finding.fatal]
    assert [(finding.kind, finding.ids) for finding in found] == [("denied", (101, 102, 103))] * 2


def test_images_of_test_that_decided_or_taught_before_are_named(tmp_path: Path) -> None:
    written(tmp_path)
    for split in ("train", "val"):
        config = coco_data(tmp_path, test={"images": split, "annotations": "val.json"})
        (finding,) = check_data(config, 1.0)[1]
        assert (finding.kind, finding.ids, finding.where) == ("in_both", (101, 102, 103), str(tmp_path / "val.json"))
        named = {"train": "train", "val": "val (which chooses the best checkpoint)"}[split]
        assert f"images are in {named} as well: what" in finding.text


def test_what_is_wrong_with_one_split_does_not_hide_the_other(tmp_path: Path) -> None:
    config, _ = written(tmp_path, train=[*ALL, box(4, 999, GOOD)])
    (tmp_path / "val.json").unlink()
    opened, findings = check_data(config, 1.0)
    assert [*opened] == ["train"]
    assert [finding.kind for finding in findings] == ["unknown_image", "unusable"]
    assert str(findings[1]).startswith("data.val.annotations: there is no file") and findings[1].fatal


def test_so_few_training_images_as_may_be_skipped_are_told_and_not_fatal(tmp_path: Path) -> None:
    config, _ = written(tmp_path, max_unreadable=1)
    (tmp_path / "train" / "0.png").write_bytes(b"no image")
    (tmp_path / "train" / "1.png").unlink()
    findings = check_data(config, 1.0)[1]
    assert {finding.kind: finding.fatal for finding in findings} == {"missing_images": False, "unreadable": False}
    assert all("skipped, as data.max_unreadable=1 allows" in finding.text for finding in findings)
    (tmp_path / "train" / "2.png").unlink()
    (tmp_path / "val" / "2.png").unlink()
    fatal = {(finding.kind, len(finding.ids)) for finding in check_data(config, 1.0)[1] if finding.fatal}
    assert fatal == {("missing_images", 2), ("missing_images", 1)}
