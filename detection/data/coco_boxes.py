"""The annotations of a COCO file, as arrays; each kind of fault becomes a finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.data.annotations import Annotations, in_order
from detection.data.coco_json import OUTLINED, Columns, in_words, is_finite, is_id, is_number, other_type, plain_id
from detection.data.coco_records import Record, ids_of, parted, repeated
from detection.data.issues import Findings
from detection.data.plausibility import check_boxes, off_by_one

ROUNDING = 0.01
"""Pixels by which a box may reach out of its image without being worth a word: COCO rounds to hundredths."""

FAR = 10
"""How many times the image's side a box may reach out of it; what reaches further cannot be meant."""

NAMED = 5
"""Unknown ids that a message names."""


def read_annotations(
    given: list[Record] | Columns,
    images: list[Record],
    faulty: list[Record],
    category_ids: list[int | str],
    classes: list[str],
    findings: Findings,
) -> Annotations:
    """Returns the boxes that can be used, and adds findings about the others.

    Args:
        given: All that the file has.
        images: Whose boxes are wanted.
        faulty: Other listed images; their boxes are left out without a word.
        category_ids: Those that are listed, in the order of labels.
        classes: Their names.
        findings: What is wrong is added to these.
    """
    place = {record["id"]: number for number, record in enumerate(images)}
    label = {category: number for number, category in enumerate(category_ids)}
    boxes = _referring(given, place, label) if isinstance(given, Columns) else None
    if boxes is None:
        records = given.records() if isinstance(given, Columns) else given
        boxes = _checked(records, place, label, faulty, findings)
    flat = boxes.given[:, 2:].min(axis=1) <= 0 if len(boxes.ids) else np.zeros(0, bool)
    findings.add("degenerate", "boxes without width or height; left out", boxes.ids[flat].tolist())
    boxes = boxes.take(np.flatnonzero(~flat))
    sizes = np.array([[p["width"], p["height"]] for p in images], np.int64).reshape(-1, 2)
    corners = boxes.given
    with np.errstate(over="ignore", invalid="ignore"):  # what is infinite then lies outside
        check_boxes(corners, boxes.where, sizes[boxes.where], boxes.ids, findings)
        corners[:, 2:] += corners[:, :2]
    used = _within(corners, sizes[boxes.where], boxes.ids, findings)
    order, starts = in_order(boxes.where[used], len(images))
    boxes = boxes.take(np.flatnonzero(used)[order])
    return Annotations(
        classes=classes,
        category_ids=category_ids,
        image_ids=np.array([plain_id(record["id"]) for record in images]),
        sizes=sizes,
        starts=starts,
        boxes=boxes.given,
        labels=boxes.labels,
        crowd=_crowds(boxes, findings),
        areas=_areas(boxes, findings),
    )


@dataclass(frozen=True)
class _Boxes:
    """T boxes of images and categories that are listed."""

    ids: NDArray[np.object_]
    where: NDArray[np.int64]
    """(T,) numbers of their images."""
    labels: NDArray[np.int64]
    given: NDArray[np.float64]
    """(T, 4)."""
    crowd: NDArray[np.object_]
    """What the file says, None where it says nothing."""
    areas: NDArray[np.object_]

    def take(self, rows: NDArray[np.int64]) -> _Boxes:
        return _Boxes(*(getattr(self, each.name)[rows] for each in fields(self)))


def _objects(values: list[Any]) -> NDArray[np.object_]:
    return np.fromiter(values, object, len(values))


def _referring(given: Columns, place: Mapping[Any, int], label: Mapping[Any, int]) -> _Boxes | None:
    """Returns boxes that have ids of their own, of known images and categories; None if any has not."""
    if len(np.unique(given.ids)) < len(given.ids):
        return None
    found = []
    for known, ids in ((place, given.image_ids), (label, given.category_ids)):
        if not all(type(key) is int for key in known) or (not known and len(ids)):
            return None
        keys = np.array([*known], np.int64)
        order = np.argsort(keys)
        at = np.searchsorted(keys[order], ids).clip(max=max(0, len(keys) - 1))
        if (keys[order][at] != ids).any():
            return None
        found.append(np.array([*known.values()], np.int64)[order][at])
    where, labels = found
    names = _objects(given.ids.tolist())
    return _Boxes(names, where, labels, given.boxes, _objects(given.crowd), _objects(given.areas))


def _checked(
    records: list[Record],
    place: Mapping[Any, int],
    label: Mapping[Any, int],
    faulty: list[Record],
    findings: Findings,
) -> _Boxes:
    """Returns the boxes of four numbers that are of known images and categories, and adds findings about the others."""
    findings.add(
        "duplicate_annotation_ids",
        "annotation ids that occur more than once; all of their boxes are used",
        repeated([record["id"] for record in records if is_id(record.get("id"))]),
    )
    records, bad = parted(records, list(map(_malformed, records)))
    bad, masks = parted(bad, [bool(record.get(OUTLINED)) for record in bad])
    text = "annotations have an outline (segmentation) and no box; left out: give each a bbox"
    findings.add("no_box", text, ids_of(masks))
    findings.add("malformed", "boxes are no list of four numbers; left out", ids_of(bad))
    records, bad = parted(records, [not all(map(is_finite, record["bbox"])) for record in records])
    findings.add("not_finite", "boxes with NaN or infinity; left out", ids_of(bad))
    records, bad = parted(records, [not _in(place, record.get("image_id")) for record in records])
    bad = _without_boxes_of(faulty, bad)
    text = f"boxes of images that are not listed ({_unknown(bad, 'image_id', place)}); left out"
    findings.add("unknown_image", text, ids_of(bad))
    records, bad = parted(records, [not _in(label, record.get("category_id")) for record in records])
    hint = _off_by_one([*records, *bad], label) if bad else ""
    text = f"boxes of categories that are not listed ({_unknown(bad, 'category_id', label)}{hint})"
    findings.add("unknown_category", text, ids_of(bad), fatal=True)
    return _Boxes(
        _objects(ids_of(records)),
        np.array([place[record["image_id"]] for record in records], np.int64),
        np.array([label[record["category_id"]] for record in records], np.int64),
        np.array([record["bbox"] for record in records], np.float64).reshape(-1, 4),
        _objects([record.get("iscrowd") for record in records]),
        _objects([record.get("area") for record in records]),
    )


def _malformed(record: Record) -> bool:
    box = record.get("bbox")
    return not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box)))


def _in(known: Mapping[Any, int], value: Any) -> bool:
    return is_id(value) and value in known


def _off_by_one(records: list[Record], known: Mapping[Any, int]) -> str:
    """How all boxes would be of known categories, if by a step of one."""
    ids = {plain_id(record["category_id"]) for record in records if is_id(record.get("category_id"))}
    return f"; all would be if they were {hint}" if (hint := off_by_one(ids, {*known})) else ""


def _without_boxes_of(images: list[Record], boxes: list[Record]) -> list[Record]:
    """Those of ``boxes`` that cannot be meant for any of ``images``, some of which may have no id."""
    ids = {in_words(image.get("id")) for image in images}
    return [box for box in boxes if "none" not in ids and in_words(box.get("image_id")) not in ids]


def _unknown(boxes: list[Record], key: str, known: Mapping[Any, int]) -> str:
    """The ids under ``key``, and whether ``known`` has one of them as the other type."""
    ids = [box.get(key) for box in boxes]
    different = list(dict.fromkeys(map(in_words, ids)))
    named = ", ".join(different[:NAMED]) + (", ..." if len(different) > NAMED else "")
    for i in ids:
        if (twin := other_type(i)) in known:
            listed = f"the number {twin}" if isinstance(twin, int) else in_words(twin)
            return f"{named}; {in_words(i)} is {listed} in the list"
    return named


def _within(
    corners: NDArray[np.float64], sizes: NDArray[np.int64], ids: NDArray[np.object_], findings: Findings
) -> NDArray[np.bool_]:
    """Which boxes lie on their images, at least in part: (T,).

    Args:
        corners: (T, 4) xyxy in pixels.
        sizes: (T, 2) width and height of each box's image.
    """
    sides = np.tile(sizes, 2)
    clipped = np.clip(corners, 0, sides)
    beyond = np.abs(clipped - corners)
    inside = np.asarray((clipped[:, 2:] > clipped[:, :2]).all(axis=1))
    far = inside & (beyond > FAR * sides).any(axis=1)
    reaches_out = inside & ~far & (beyond > ROUNDING).any(axis=1)
    text = "boxes that reach out of their image; clipped in training"
    findings.add("partly_outside", text, ids[reaches_out].tolist())
    text = f"boxes that reach out of their image by more than {FAR} times its width or height; left out"
    findings.add("far_outside", text, ids[far].tolist())
    findings.add("outside", "boxes that lie outside their image; left out", ids[~inside].tolist())
    return inside & ~far


def _crowds(boxes: _Boxes, findings: Findings) -> NDArray[np.bool_]:
    """Which boxes are crowd regions, (T,): as pycocotools takes it any number but 0 says so, and of texts "1"."""
    given = boxes.crowd.tolist()
    crowd = np.array([value == "1" or (isinstance(value, int | float) and value != 0) for value in given], bool)
    odd = np.array([value not in (None, 0, 1) for value in given], bool)
    for taken in (0, 1):
        text = f"boxes whose iscrowd is neither 0 nor 1; taken as {taken}"
        findings.add("odd_iscrowd", text, boxes.ids[odd & (crowd == taken)].tolist())
    return crowd


def _areas(boxes: _Boxes, findings: Findings) -> NDArray[np.float64]:
    """What counts as the area of each box, (T,), in pixels."""
    areas, odd = (boxes.given[:, 2:] - boxes.given[:, :2]).prod(axis=1), list[int]()
    for row, given in enumerate(boxes.areas.tolist()):
        if is_number(given) and is_finite(given) and given > 0:
            areas[row] = given
        elif given is not None:
            odd.append(row)
    findings.add("odd_area", "boxes whose area is no number above 0; taken from the box", boxes.ids[odd].tolist())
    return areas
