"""Annotation files with anything in any field: each annotation becomes a box or is counted in a finding."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from detection.augmentation.sections import AugmentationConfig
from detection.augmentation.transforms import TrainReader
from detection.data.annotations import Annotations
from detection.data.coco import read_split
from detection.data.open import check_data, described
from detection.report.coco_metrics import coco_evaluate
from engine.data.batch_plan import Draw
from tests.detection.coco_files import box, coco_data, write_split
from tests.detection.results import predictions
from tests.detection.small import prepared
from tests.fuzz.examples import Hunt, hunted, refused
from tests.fuzz.yaml_texts import places

LEFT_OUT = ("no_box", "malformed", "not_finite", "unknown_image", "degenerate", "far_outside", "outside")


class Raw(str):
    """What stands in the file as it is."""


ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 101, 102, 40, 30, 2**31, 2**63, 10**20, -(10**20), 0.0, -0.0, 0.5, 1.0, 101.0,
    101.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"), "", "101", "102.0", "1e3", " 101", "\u0661",
    "nan", "cat", "Cat", "c\u0430t", "0.png", "./0.png", "../train/0.png", "/", "a\x00b", "\ud800", "\udce9",
    "\x1b[1m", "x" * 5000, [], {}, [[]], [None], {"": None}, [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5], [0, 0, 0, 0],
    [-5, -5, 10, 10], [39, 29, 5, 5], [100, 100, 5, 5], [5, 5, -3, 4], [5, 5, 1e308, 1e308], [1e308] * 4,
    [True, 0, 5, 5], [*"1234"], [0, 0, 10**400, 5], [0, 0, float("nan"), 5], [0.1, 0.1, 0.2, 0.2], [-1e6, 0, 2e6, 5],
    Raw("1" * 5000), Raw("1e999"), Raw("-0"), Raw("[" * 2000 + "]" * 2000), Raw("tru"), Raw(""),
    Raw('{"a": 1, "a": 2}'), Raw('1, "id": 3'), Raw("1, 2"),
]  # fmt: skip
odd = st.sampled_from(ODD).map(deepcopy) | st.integers() | st.floats() | st.text(max_size=4)
KEYS = (
    "id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "file_name", "width", "height", "name",
    "images", "annotations", "categories", "info", "",
)  # fmt: skip


def document() -> dict[str, Any]:
    images = [{"id": 101 + k, "file_name": f"{k}.png", "width": 40, "height": 30} for k in range(3)]
    categories = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}]
    boxes = [
        box(1, 101, [5, 5, 10, 10]),
        box(2, 101, [8.5, 2, 30, 20], 7, area=50, iscrowd=1),
        box(3, 102, [0, 0, 40, 30]),
    ]
    boxes += [box(4, 102, [1, 2, 3, 4], 7, iscrowd=0), box(5, 103, [20, 10, 12, 9], segmentation=[[1, 1, 2, 2, 3, 1]])]
    return {"images": images, "annotations": boxes, "categories": categories}


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A small file in which up to four values are odd, missing, renamed or doubled."""
    tree: Any = document()
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.sampled_from(places(tree) or [()]))
        holder = tree
        for key in place[:-1]:
            holder = holder[key]
        if not place:
            continue
        match draw(st.integers(0, 6)):
            case 0:
                del holder[place[-1]]
            case 1 if isinstance(holder, dict):
                holder[draw(st.sampled_from(KEYS))] = holder.pop(place[-1])
            case 2 if isinstance(holder, list):
                holder.insert(place[-1], deepcopy(draw(st.sampled_from([*holder]))))
            case 3 if isinstance(holder, dict):
                holder[draw(st.sampled_from(KEYS))] = draw(odd)
            case _:
                holder[place[-1]] = draw(odd)
        tree = json.loads(json.dumps(tree, default=str)) if draw(st.integers(0, 9)) == 0 else tree
    return written(tree)


def written(value: Any) -> str:
    """JSON with what is raw as it is."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {written(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(written, value)) + "]" if isinstance(value, list) else json.dumps(value)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    text = draw(documents())
    for _ in range(draw(st.integers(0, 2))):
        begin = draw(st.integers(0, len(text)))
        end = draw(st.integers(begin, min(len(text), begin + 60)))
        text = (
            text[:begin]
            + draw(st.sampled_from(["", text[begin:end] * 2, ",", "}", "[", '"', "\x00", "NaN", "1e5", "\ufeff"]))
            + text[end:]
        )
    return text.encode(
        draw(st.sampled_from(["utf-8"] * 8 + ["utf-8-sig", "utf-16", "utf-32", "latin-1"])), errors="replace"
    )


@hunted(200, 10000)
def test_each_annotation_is_a_box_or_counted(hunt: Hunt, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_split(tmp_path, split, document()["annotations"])
    data = coco_data(tmp_path)

    @hunt(documents().map(lambda text: text.encode(errors="surrogatepass")) | texts())
    def check(content: bytes) -> None:
        (tmp_path / "train.json").write_bytes(content)
        read, message = refused(lambda: read_split(data, "train"))
        if read is None:
            assert str(tmp_path / "train.json") in message, message
            return
        images, findings = read
        told = "\n".join(finding.told(1000) for finding in findings)
        if not any(finding.fatal for finding in findings):
            given = json.loads(content, object_pairs_hook=only_once)
            left_out = sum(len(finding.ids) for finding in findings if finding.kind in LEFT_OUT)
            assert len(images.annotations.boxes) + left_out == len(given["annotations"]), told
            assert not Counter(boxes_of(images.annotations)) - Counter(boxes_in(given)), told
            assert len(images) == len(given["images"]) and len(images.annotations.classes) == len(
                given["categories"]
            ), told
        opened, others = check_data(data, 1.0)
        for split, there in opened.items():
            assert described(split, there)
        if not any(finding.fatal for finding in [*findings, *others]):
            known = images.annotations
            owners = np.repeat(np.arange(len(known)), np.diff(known.starts))
            perfect = predictions(len(known), known.boxes, known.labels, np.ones(len(owners)), owners)
            assert coco_evaluate(perfect, known).metrics["AP"] == pytest.approx(1.0), told
            reader = TrainReader(images, prepared((48, 48)), AugmentationConfig(), 0)
            for index in range(len(images)):
                sample = reader[Draw(index, 0, index)]
                assert sample["boxes"].isfinite().all() and sample["image"].shape == (3, 48, 48)


def boxes_of(known: Annotations) -> Iterator[tuple]:
    """Image, category, corners and crowd of each box that was opened."""
    for index, image in enumerate(known.image_ids.tolist()):
        for row in range(known.starts[index], known.starts[index + 1]):
            yield image, known.category_ids[known.labels[row]], *known.boxes[row].tolist(), bool(known.crowd[row])


def boxes_in(given: dict[str, Any]) -> Iterator[tuple]:
    """The same of each that the file has, as it stands there."""
    for record in given["annotations"]:
        with contextlib.suppress(Exception):
            left, top, width, height = map(float, record["bbox"])
            corners = left, top, left + width, top + height
            crowd = record.get("iscrowd", 0)
            is_crowd = crowd != 0 if isinstance(crowd, int | float) else crowd == "1"
            found = record["image_id"], record["category_id"], *corners, is_crowd
            hash(found)  # or its ids are lists or objects, which are none
            yield found


READ = {"images", "annotations", "categories", "id", "image_id", "category_id", "bbox", "area", "iscrowd"}
READ |= {"file_name", "width", "height", "name"}


def only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes sure that nothing that is read comes twice; outlines, for example, are not."""
    keys = [key for key, _ in pairs if key in READ]
    assert len(set(keys)) == len(keys), f"the last of {keys} counts alone"
    return dict(pairs)
