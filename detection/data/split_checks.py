"""What is wrong with the splits of a data set that a look at each annotation file alone does not show."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from detection.data.annotations import Annotations, other_names
from detection.data.coco import CocoImages, split_files
from detection.data.issues import Finding, Findings, forgiven
from detection.data.plausibility import compare_with_train
from detection.data.sections import CocoData, ShardData
from engine.data.file_check import look_at_some
from engine.datasets.shard_images import INDEX
from engine.images.image_io import HUGE, may_be_sideways, open_image, read_image, size_in_file
from engine.images.same_content import copies_between


def check_splits(data: CocoData | ShardData, opened: Mapping[str, CocoImages], least: float) -> list[Finding]:
    """Looks at image files, and at the splits that were opened beside each other.

    Args:
        opened: By name; ``train`` may be missing.
        least: Pixels of a side at the model's size that an object must have to be trained on.
    """
    found = list[Finding]()
    for split, images in opened.items():
        looks = look_at_images(images)
        found += forgiven(looks, data.max_unreadable) if split == "train" else looks
    train, val = opened.get("train"), opened.get("val")
    for split, images in opened.items():
        index = images.folder / INDEX.format(split)
        findings = Findings(str(split_files(data, split)[1] if isinstance(data, CocoData) else index))
        if images is train:
            check_trainable(images.annotations, data.size, least, findings)
        else:
            if train is not None:
                compare_categories(train.annotations, images.annotations, findings)
                compare_with_train(train.annotations, images.annotations, findings)
                find_in_both(train, images, "train", findings)
            if split == "test" and val is not None:
                find_in_both(val, images, "val (which chooses the best checkpoint)", findings)
            if images.annotations.crowd.all():
                findings.say("no_objects", "there is no object to find, so that no figure is a number")
        found += findings.found
    return found


def look_at_images(images: CocoImages) -> list[Finding]:
    """Finds files that are no images, or images of another size than their annotations are for; both are fatal. Tells
    of huge images.

    Pixels are decoded only where the size is not the one expected, or the image may have to be turned upright. Files
    that are not there are left to :func:`detection.data.coco.read_split`.
    """
    faults = look_at_some(len(images), lambda index: _fault(images, index))
    findings, ids = Findings(str(images.folder)), images.annotations.image_ids
    first = next((images.fault(index) for index, fault in faults.items() if fault == "unreadable"), "")
    for kind, text in (
        ("unreadable", f"files that cannot be used as images; the first: {first}"),
        ("denied", "files that may not be read: Permission denied"),
        ("other_size", "images whose width and height are not those of their annotations"),
    ):
        findings.add(kind, text, [ids[index].item() for index, fault in faults.items() if fault == kind], fatal=True)
    huge = np.flatnonzero(images.annotations.sizes.prod(axis=1) > HUGE)
    text = f"images of more than {HUGE // 10**6} million pixels, which take up to 0.6 GB each while they are read"
    findings.add("huge", text, ids[huge].tolist())
    return findings.found


def _fault(images: CocoImages, index: int) -> str:
    """The kind of what is wrong with a file; empty if nothing is."""
    expected = tuple(images.annotations.sizes[index].tolist())
    try:
        with open_image(images.source(index)) as image:
            if image.size == expected and not may_be_sideways(image):
                return ""
            whole = read_image(images.path(index), images.content(index))
            return "" if size_in_file(whole) == expected else "other_size"
    except FileNotFoundError:
        return ""
    except PermissionError:
        return "denied"
    except Exception:  # a decoder that meets broken data raises whatever its parsing trips over
        return "unreadable" if images.fault(index) else ""  # it may have been the storage that failed, for a moment


def check_trainable(train: Annotations, size: tuple[int, int], least: float, findings: Findings) -> None:
    """Looks for objects to learn from, of each class and of a size to be seen (``size``: height and width)."""
    owners = np.repeat(np.arange(len(train)), np.diff(train.starts))
    sides = (train.boxes[:, 2:] - train.boxes[:, :2]) * (np.array(size[::-1]) / train.sizes[owners])
    small = ~train.crowd & (sides.min(axis=1) < least)
    objects = ~train.crowd & ~small
    if objects.any():
        seen = np.bincount(train.labels[objects], minlength=len(train.classes))
        never = [train.category_ids[label] for label in np.flatnonzero(seen == 0)]
        findings.add("never_seen", "categories of which there is no object to learn from", never)
    else:
        findings.say("no_objects", "there is no object to learn from", fatal=True)
    text = (
        f"images with objects of less than {least:g} pixels on a side at the model's size ({size[0]} x {size[1]}), "
        "which training leaves out; a larger data.image_size would keep them"
    )
    findings.add("too_small", text, train.image_ids[np.unique(owners[small])].tolist())


def compare_categories(train: Annotations, other: Annotations, findings: Findings) -> None:
    """Finds, as a fatal fault, category ids that do not have the same name in two splits."""
    different, shown = other_names(train.names, other.names, "in train")
    findings.add("different_categories", f"categories differ from train's: {shown}", different, fatal=True)


def find_in_both(known: CocoImages, other: CocoImages, known_as: str, findings: Findings) -> None:
    """Finds images of ``other`` that are in ``known`` too, by path or content, which the finding calls ``known_as``."""
    paths = {os.path.normpath(known.path(index)) for index in range(len(known))}
    again = {index for index in range(len(other)) if os.path.normpath(other.path(index)) in paths}
    copies = copies_between(known, other)
    text = f"images are in {known_as} as well: what is measured on them says nothing about others"
    if copied := [pair for pair in copies.pairs if pair[0] not in again]:
        copy, first = copied[0]
        text += f"; {other.path(copy)} has the content of {known.path(first)}"
        text += " (not all files were compared)" if copies.part else ""
    findings.add("in_both", text, other.annotations.image_ids[sorted(again.union(i for i, _ in copied))].tolist())
