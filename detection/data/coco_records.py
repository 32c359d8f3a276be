"""The categories and images of a COCO file; each kind of fault becomes a finding."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detection.data.coco_json import Record, in_words, is_file_name, is_id, is_side, plain_id
from detection.data.issues import Findings
from engine.images.file_names import locate
from engine.look_alike import as_text, look_alikes, told_apart

_OF_IMAGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (is_id, "whole number of 64 bits or text"),
    "file_name": (is_file_name, "name of a file"),
    "width": (is_side, "whole number from 1 on"),
    "height": (is_side, "whole number from 1 on"),
}
"""What an image's record has to have, and what each of it has to be. What comes first is told first."""


def read_categories(records: list[Record], findings: Findings) -> tuple[list[int | str], list[str]]:
    """Returns ids, sorted, and names."""
    good, faulty = parted(records, [not is_id(record.get("id")) for record in records])
    findings.add("malformed_category", "categories without an id", ids_of(faulty), fatal=True)
    ids = [plain_id(record["id"]) for record in good]
    findings.add("duplicate_category_ids", "category ids that occur more than once", repeated(ids), fatal=True)
    names = {i: as_text(str(record.get("name", i))) for i, record in zip(ids, good, strict=True)}
    twice = set(repeated(list(names.values())))
    alike = [name for group in look_alikes(dict.fromkeys(names.values())) for name in group]
    text = (
        f"categories whose names look like another's and are not the same, such as {', '.join(told_apart(*alike)[:2])}"
    )
    findings.add("look_alike_categories", text, [i for i in names if names[i] in alike])
    findings.add("duplicate_category_names", "categories that share a name", [i for i in names if names[i] in twice])
    if not records:
        findings.say("no_categories", "the list of categories is empty", fatal=True)
    ordered = sorted(names, key=lambda i: (isinstance(i, str), i))
    return ordered, [names[i] for i in ordered]


def read_images(
    records: list[Record], folder: Path, alone: bool, findings: Findings
) -> tuple[list[Record], list[Record], list[str]]:
    """Returns records that have an id, a file name and a size; the others, which training must not start with; and
    the folders in which files were looked for.

    ``alone``: no other split has images in ``folder``, so that files that are not listed are worth a word.
    """
    good, faulty = records, list[Record]()
    for key, (is_right, needed) in _OF_IMAGES.items():
        good, bad = parted(good, [not is_right(record.get(key)) for record in good])
        wrong, missing = parted(bad, [record.get(key) is None for record in bad])
        findings.add("malformed_image", f"images without {key}", ids_of(missing), fatal=True)
        text = f"images whose {key} is no {needed}, such as {in_words(wrong[0][key]) if wrong else ''}"
        findings.add("malformed_image", text, ids_of(wrong), fatal=True)
        faulty += bad
    ids = [plain_id(record["id"]) for record in good]
    findings.add("duplicate_image_ids", "image ids that occur more than once", repeated(ids), fatal=True)
    if len({type(i) for i in ids}) > 1:
        findings.add("mixed_image_ids", "image ids of which some are numbers and some texts", ids, fatal=True)
    folders = _find_files(good, ids, folder, alone, findings)
    paths = [os.path.normpath(record["file_name"]) for record in good]
    twice = set(repeated(paths))
    text = "images that share a file with another one: what is an object of the one is background of the other"
    findings.add("shared_files", text, [i for i, path in zip(ids, paths, strict=True) if path in twice])
    if not records:
        findings.say("no_images", "the list of images is empty", fatal=True)
    return good, faulty, folders


def _find_files(
    records: list[Record], ids: list[int | str], folder: Path, alone: bool, findings: Findings
) -> list[str]:
    """Puts the files' own names where they are spelt otherwise, and notes which are not there, or not listed. Returns
    the folders that were looked into.
    """
    names = [record["file_name"] for record in records]
    found = locate(names, folder, count_others=alone)
    for record, name in zip(records, names, strict=True):
        record["file_name"] = found.spelt.get(name, name)
    spelt = [i for i, name in zip(ids, names, strict=True) if name in found.spelt]
    findings.add("spelt_otherwise", f"images that {found.told()}", spelt)
    for below, why in found.denied.items():
        findings.say("denied", f"the folder {folder / below} cannot be read: {why}", fatal=True)
    told = ", ".join(f"{names[number]}{found.near(number)}" for number in found.missing[:3])
    text = f"images that are not in {folder}, such as {told}"
    findings.add("missing_images", text, [ids[number] for number in found.missing], fatal=True)
    if found.others:
        text = f"{found.others} other images lie in the same folders; left out; the first: {folder / found.other}"
        findings.say("unlisted", text)
    return [os.path.join(folder, below) for below in found.folders]


def parted(records: list[Record], faults: list[bool]) -> tuple[list[Record], list[Record]]:
    """Returns the records whose entry in ``faults`` is false, and those whose is true."""
    good = [record for record, fault in zip(records, faults, strict=True) if not fault]
    return good, [record for record, fault in zip(records, faults, strict=True) if fault]


def ids_of(records: list[Record]) -> list[Any]:
    """Returns what a finding calls them."""
    return [record.get("id", "none") for record in records]


def repeated(values: list[Any]) -> list[Any]:
    """Returns those that occur more than once, each once."""
    return [value for value, count in Counter(values).items() if count > 1]
