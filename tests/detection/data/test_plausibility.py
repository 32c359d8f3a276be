"""Boxes and labels of another convention, known by all of a file together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from detection.data.issues import Finding, Findings
from detection.data.open import check_data
from detection.data.plausibility import check_boxes, off_by_one
from tests.detection.coco_files import box, coco_data, write_split

WIDTH, HEIGHT = 640, 400


def boxes(count: int, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """Boxes (T, 4), left, top, width and height in pixels, anywhere within an image."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * size
    ends[:, 1] = np.maximum(ends[:, 1], ends[:, 0] + 5)
    return np.concatenate([ends[:, 0], np.minimum(ends[:, 1], size) - ends[:, 0]], axis=1).round(1).clip(0.1)


def found(given: np.ndarray, size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[Finding]:
    findings, count = Findings("val.json"), len(given)
    ids = np.arange(count).astype(object)
    check_boxes(given, np.arange(count), np.tile(size, (count, 1)), ids, findings)
    return findings.found


def corners(b: np.ndarray) -> np.ndarray:
    return np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1)


def centres(b: np.ndarray) -> np.ndarray:
    return np.concatenate([b[:, :2] + b[:, 2:] / 2, b[:, 2:]], axis=1)


@pytest.mark.parametrize("count", [8, 1000])
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (corners, "[left, top, right, bottom]"),
        (centres, "[centre x, centre y, width, height]"),
        (lambda b: b[:, [1, 0, 3, 2]], "[top, left, height, width]"),
        (lambda b: corners(b)[:, [1, 0, 3, 2]], "[top, left, bottom, right]"),
    ],
)
def test_the_order_that_is_meant_is_named(wrong: Callable[[np.ndarray], np.ndarray], named: str, count: int) -> None:
    (finding,) = found(wrong(boxes(count, seed=1)))
    assert finding.kind == "other_convention" and f"as {named}" in finding.text and not finding.fatal
    assert 1 < len(finding.ids) <= count


@pytest.mark.parametrize("count", [1, 4, 1000])
def test_fractions_are_refused(count: int) -> None:
    (finding,) = found(boxes(count) / ([WIDTH, HEIGHT] * 2))
    assert (finding.kind, finding.fatal, len(finding.ids)) == ("fractions", True, count)


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.7, 1.3, 2.5])
def test_pixels_of_another_size_are_told(scale: float) -> None:
    (finding,) = found(boxes(60) * scale)
    assert finding.kind == "other_scale" and "size" in finding.text


def test_right_boxes_are_not_worth_a_word() -> None:
    for seed in range(50):
        for count in (0, 1, 2, 4, 9, 40, 500):
            assert not found(boxes(count, seed)), (seed, count)
            assert not found(boxes(count, seed, (50, 50)), (50, 50)), (seed, count)
    assert not found(np.array([[0.0, 0.0, 1.0, 1.0]])), "a pixel"
    sloppy = boxes(200)
    sloppy[::20, 2] += WIDTH
    assert not found(sloppy), "some that reach out are told one by one"


OBJECTS = [
    box(n, 101 + n % 3, [2 + 3 * n, 1 + 2 * n, 10, 9], kind) for n, kind in enumerate((2, 7, 90, 2, 7, 90, 2, 7))
]


def kinds(tmp_path: Path, val: list[dict], **changes: object) -> dict[str, Finding]:
    write_split(tmp_path, "train", OBJECTS, **changes)
    write_split(tmp_path, "val", val, **changes)
    return {finding.kind: finding for finding in check_data(coco_data(tmp_path), 1.0)[1]}


def test_splits_that_are_alike_are_not_worth_a_word(tmp_path: Path) -> None:
    assert not kinds(tmp_path, OBJECTS)


def test_fractions_in_val_are_refused_and_what_follows_is_not_told(tmp_path: Path) -> None:
    val = [{**each, "bbox": [value / 40 for value in each["bbox"]]} for each in OBJECTS]
    assert {kind: finding.fatal for kind, finding in kinds(tmp_path, val).items()} == {"fractions": True}


def test_a_val_in_pixels_of_a_smaller_size_than_train_is_told(tmp_path: Path) -> None:
    images = [{"id": 101 + i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(12)]
    spread = [box(n, 101 + n, [n * 2.4, n * 1.7, 12, 10], (2, 7, 90)[n % 3]) for n in range(12)]
    write_split(tmp_path, "train", spread, count=12, images=images)
    halves = [{**each, "bbox": [value / 2 for value in each["bbox"]]} for each in spread[:5]]
    write_split(tmp_path, "val", halves, count=12, images=images)
    (finding,) = check_data(coco_data(tmp_path), 1.0)[1]
    assert (
        finding.kind == "other_scale" and finding.where.endswith("val.json") and "train's reach further" in finding.text
    )


def test_a_val_is_not_of_a_smaller_size_where_trains_boxes_reach_out_of_their_images(tmp_path: Path) -> None:
    images = [{"id": 101 + i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(12)]
    spread = [box(n, 101 + n, [25.0 + n % 3, 17.0 + n % 3, 12, 10], (2, 7, 90)[n % 3]) for n in range(12)]
    corners = [{**each, "bbox": [*each["bbox"][:2], each["bbox"][0] + 12, each["bbox"][1] + 10]} for each in spread]
    write_split(tmp_path, "train", corners, count=12, images=images)
    write_split(tmp_path, "val", spread, count=12, images=images)
    told = check_data(coco_data(tmp_path), 1.0)[1]
    assert told and all(finding.where.endswith("train.json") for finding in told), told


def test_a_val_of_one_category_is_told(tmp_path: Path) -> None:
    (finding,) = kinds(tmp_path, [{**each, "category_id": 7} for each in OBJECTS]).values()
    assert finding.kind == "one_category" and finding.text.startswith("all 8 objects are of one category, 'dog' (id 7)")


def shifted(annotations: list[dict], step: int) -> list[dict]:
    return [{**each, "category_id": each["category_id"] + step} for each in annotations]


def test_labels_that_are_one_off_are_told(tmp_path: Path) -> None:
    categories = [{"id": i, "name": f"kind {i}"} for i in (1, 2, 3)]
    train = [{**each, "category_id": 1 + n % 3} for n, each in enumerate(OBJECTS)]
    write_split(tmp_path, "train", train, categories=categories)
    write_split(
        tmp_path, "val", [{**each, "category_id": each["category_id"] - 1} for each in train], categories=categories
    )
    (finding,) = check_data(coco_data(tmp_path), 1.0)[1]
    assert finding.kind == "unknown_category" and finding.fatal
    assert "not listed (0; all would be if they were one higher (numbered from 0?))" in finding.text
    categories.append({"id": 4, "name": "kind 4"})
    write_split(tmp_path, "train", train, categories=categories)
    write_split(
        tmp_path, "val", [{**each, "category_id": each["category_id"] + 1} for each in train], categories=categories
    )
    findings = {finding.kind: finding for finding in check_data(coco_data(tmp_path), 1.0)[1]}
    assert findings["off_by_one"].ids == (4,) and "if they were one lower" in findings["off_by_one"].text


def test_ids_are_one_off_only_if_all_are() -> None:
    assert off_by_one({0, 1}, {1, 2}) and off_by_one({2, 3}, {1, 2})
    assert not off_by_one({0, 5}, {1, 2}) and not off_by_one({"0"}, {1}) and not off_by_one(set(), {1})


def test_outlines_without_boxes_are_called_that(tmp_path: Path) -> None:
    outlined = {"segmentation": [[1, 1, 20, 1, 20, 20]]}
    val = [{**each, **outlined} for each in OBJECTS]
    del val[0]["bbox"]
    val[1]["bbox"], val[2]["bbox"], val[3]["bbox"] = [], None, [1, 2, 3]
    findings = kinds(tmp_path, val)
    assert findings["no_box"].ids == (0, 1, 2) and findings["malformed"].ids == (3,)
