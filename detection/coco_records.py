"""The records of a COCO file, as arrays; each kind of fault becomes a finding."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from detection.annotations import Annotations, in_order
from detection.coco_values import box_area, is_crowd, is_file_name, is_finite, is_id, is_number, is_side, plain_id
from detection.findings import Findings

Record = dict[str, Any]


def read_categories(records: list[Record], findings: Findings) -> tuple[list[int | str], list[str]]:
    """Ids, sorted, and names."""
    good = _without(records, findings, "malformed_category", "categories without an id", _no_id, fatal=True)
    ids = [plain_id(record["id"]) for record in good]
    findings.add("duplicate_category_ids", "category ids that occur more than once", _repeated(ids), fatal=True)
    names = {i: str(record.get("name", i)) for i, record in zip(ids, good, strict=True)}
    twice = set(_repeated(list(names.values())))
    findings.add("duplicate_category_names", "categories that share a name", [i for i in names if names[i] in twice])
    if not names:
        findings.say("no_categories", "the list of categories is empty", fatal=True)
    ordered = sorted(names, key=lambda i: (isinstance(i, str), i))
    return ordered, [names[i] for i in ordered]


def read_pictures(records: list[Record], folder: Path, findings: Findings) -> list[Record]:
    """Records that have an id, a file name and a size."""
    text = "pictures without an id, a file_name, or a width and height of 1 or more"
    good = _without(records, findings, "malformed_picture", text, _malformed_picture, fatal=True)
    ids = [plain_id(record["id"]) for record in good]
    findings.add("duplicate_picture_ids", "picture ids that occur more than once", _repeated(ids), fatal=True)
    if len({type(i) for i in ids}) > 1:
        findings.add("mixed_picture_ids", "picture ids of which some are numbers and some texts", ids, fatal=True)
    there = _files_in(folder, {os.path.dirname(record["file_name"]) for record in good})
    paths = [os.path.normpath(record["file_name"]) for record in good]
    missing = [i for i, path in zip(ids, paths, strict=True) if path not in there]
    findings.add("missing_pictures", f"pictures that are not in {folder}", missing, fatal=True)
    twice = set(_repeated(paths))
    text = "pictures that share a file with another one: what is an object of the one is background of the other"
    findings.add("shared_files", text, [i for i, path in zip(ids, paths, strict=True) if path in twice])
    if not good:
        findings.say("no_pictures", "there is no picture that can be used", fatal=True)
    return good


def _files_in(folder: Path, below: set[str]) -> set[str]:
    """Files of some folders below ``folder``, by one listing each: asking for each picture would take far longer."""
    files = set[str]()
    for name in below:
        with suppress(OSError):  # no such folder, or none that may be listed
            files.update(os.path.normpath(os.path.join(name, entry)) for entry in os.listdir(folder / name))
    return files


def read_annotations(
    records: list[Record],
    pictures: list[Record],
    category_ids: list[int | str],
    classes: list[str],
    findings: Findings,
) -> Annotations:
    """The boxes that can be used, and findings about the others."""
    findings.add(
        "duplicate_annotation_ids",
        "annotation ids that occur more than once; all of their boxes are used",
        _repeated([record["id"] for record in records if is_id(record.get("id"))]),
    )
    place = {record["id"]: number for number, record in enumerate(pictures)}
    label = {category: number for number, category in enumerate(category_ids)}
    records = _without(records, findings, "malformed", "boxes are no list of four numbers; left out", _malformed)
    records = _without(records, findings, "not_finite", "boxes with NaN or infinity; left out", _not_finite)
    text = "boxes of pictures that are not listed; left out"
    records = _without(records, findings, "unknown_picture", text, _unknown("image_id", place))
    text = "boxes of categories that are not listed"
    records = _without(records, findings, "unknown_category", text, _unknown("category_id", label), fatal=True)
    text = "boxes without width or height; left out"
    records = _without(records, findings, "degenerate", text, lambda record: min(record["bbox"][2:]) <= 0)
    sizes = np.array([[p["width"], p["height"]] for p in pictures], np.int64).reshape(-1, 2)
    where = np.array([place[record["image_id"]] for record in records], np.int64)
    corners = np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):  # what is infinite then lies outside
        corners[:, 2:] += corners[:, :2]
    clipped = np.clip(corners, 0, np.tile(sizes[where], 2))
    ids = np.array([record.get("id", "none") for record in records], object)
    inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    reaches_out = inside & (np.abs(clipped - corners) > _ROUNDING).any(axis=1)
    findings.add(
        "partly_outside", "boxes that reach out of their picture; clipped in training", ids[reaches_out].tolist()
    )
    findings.add("outside", "boxes that lie outside their picture; left out", ids[~inside].tolist())
    order, starts = in_order(where[inside], len(pictures))
    boxes = corners[inside][order]
    labels = np.array([label[record["category_id"]] for record in records], np.int64)
    crowd = np.array([is_crowd(record.get("iscrowd")) for record in records], bool)
    own_areas = np.array([box_area(record.get("area")) for record in records], np.float64)[inside][order]
    sides = boxes[:, 2:] - boxes[:, :2]
    return Annotations(
        classes=classes,
        category_ids=category_ids,
        picture_ids=np.array([plain_id(record["id"]) for record in pictures]),
        sizes=sizes,
        starts=starts,
        boxes=boxes,
        labels=labels[inside][order],
        crowd=crowd[inside][order],
        areas=np.where(np.isnan(own_areas), sides.prod(axis=1), own_areas),
    )


_ROUNDING = 0.01
"""Pixels by which a box may reach out of its picture without being worth a word: COCO rounds to hundredths."""


def _without(
    records: list[Record], findings: Findings, kind: str, text: str, bad: Callable[[Record], bool], fatal: bool = False
) -> list[Record]:
    """The records for which ``bad`` is false; a finding about the others."""
    faults = [bad(record) for record in records]
    findings.add(kind, text, _ids([r for r, fault in zip(records, faults, strict=True) if fault]), fatal)
    return [record for record, fault in zip(records, faults, strict=True) if not fault]


def _no_id(record: Record) -> bool:
    return not is_id(record.get("id"))


def _malformed_picture(record: Record) -> bool:
    sides = (record.get("width"), record.get("height"))
    return _no_id(record) or not is_file_name(record.get("file_name")) or not all(map(is_side, sides))


def _malformed(record: Record) -> bool:
    box = record.get("bbox")
    return not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box)))


def _not_finite(record: Record) -> bool:
    return not all(map(is_finite, record["bbox"]))


def _unknown(key: str, known: Mapping[Any, int]) -> Callable[[Record], bool]:
    return lambda record: not is_id(record.get(key)) or record[key] not in known


def _ids(records: list[Record]) -> list[Any]:
    return [record.get("id", "none") for record in records]


def _repeated(values: list[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]
