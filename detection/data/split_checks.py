"""What is wrong with the splits of a data set that a look at each file alone does not show."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from detection.data.annotations import Annotations
from detection.data.coco import CocoImages, split_files
from detection.data.issues import Finding, Findings
from detection.data.sections import CocoData


def compare_splits(data: CocoData, opened: Mapping[str, CocoImages], least: float) -> list[Finding]:
    """Findings about the splits that were opened.

    Args:
        opened: By name; ``train`` may be missing.
        least: Pixels of a side at the model's size that an object must have to be trained on.
    """
    findings = []
    for split, images in opened.items():
        where = str(split_files(data, split)[1])
        if split == "train":
            findings += trainable(images.annotations, where, data.size, least)
            continue
        if "train" in opened:
            findings += compare_categories(opened["train"].annotations, images.annotations, where)
            findings += in_both(opened["train"], images, where, "train")
        if split == "test" and "val" in opened:
            findings += in_both(opened["val"], images, where, "val")
        if images.annotations.crowd.all():
            there = Findings(where)
            there.say("no_objects", "there is no object to find, so that no figure is a number")
            findings += there.found
    return findings


def trainable(train: Annotations, where: str, size: tuple[int, int], least: float) -> list[Finding]:
    """Whether there are objects to learn from, of each class and of a size (``size``: height and width) to be seen."""
    findings = Findings(where)
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
    return findings.found


def compare_categories(train: Annotations, other: Annotations, where: str) -> list[Finding]:
    """A fatal finding if two splits do not have the same category ids under the same names."""
    names, own = (dict(zip(each.category_ids, each.classes, strict=True)) for each in (train, other))
    different = [i for i in {**names, **own} if names.get(i) != own.get(i)]
    shown = ", ".join(f"{i}: {names.get(i)!r} in train, {own.get(i)!r} here" for i in different[:5])
    findings = Findings(where)
    findings.add("different_categories", f"categories differ from train's: {shown}", different, fatal=True)
    return findings.found


def in_both(known: CocoImages, other: CocoImages, where: str, split: str) -> list[Finding]:
    """A finding about images of ``other`` that are in ``known`` too: the ``split`` train or val."""
    paths = {os.path.normpath(known.path(index)) for index in range(len(known))}
    again = [index for index in range(len(other)) if os.path.normpath(other.path(index)) in paths]
    findings = Findings(where)
    uses = {"train": "", "val": ", by which the best checkpoint is chosen"}
    text = f"images are in {split} as well{uses[split]}: what is measured on them says nothing about others"
    findings.add("in_both", text, other.annotations.image_ids[again].tolist())
    return findings.found
