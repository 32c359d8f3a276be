"""What is looked at before training, or before it is queued, so that a missing image is not first met hours later."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

import numpy as np

from engine.data.file_check import InFiles, look_at_some
from engine.data.names import Names
from engine.datasets.class_folders import split_folder
from engine.datasets.csv_labels import open_csv
from engine.datasets.labelled import FileImages, LabelledImages, class_counts
from engine.datasets.sections import CsvData, DataConfig, FolderData, ShardData, TorchvisionData
from engine.datasets.shard_images import open_shards
from engine.datasets.torchvision_sets import download, open_torchvision
from engine.errors import UserError
from engine.images.file_names import NAMED, Located, locate
from engine.images.image_io import HUGE, open_image
from engine.images.same_content import copies_across, copies_between
from engine.look_alike import look_alikes, told_apart

log = logging.getLogger(__name__)


def look_for_data(data: DataConfig) -> None:
    """Looks for the parts of a data set, not into each image; fetches it if the run is to.

    Raises:
        UserError: something is not there; the text says where it was looked for.
    """
    match data:
        case FolderData():
            for split in ("train", "val") if data.val_fraction is None else ("train",):
                split_folder(data.root, split)
        case CsvData():
            open_csv(data, "val")
        case ShardData():
            open_shards(data, "val")
        case TorchvisionData():
            if data.download:
                download(data)
            open_torchvision(data, "val")


def located(images: FileImages, watched: list[str] | None = None) -> FileImages:
    """Returns ``images`` by the names of their files, which a list may spell otherwise, and tells what is ``missing``.

    Lists each folder once; adds them to ``watched``.
    """
    found = locate(images.names, images.root)
    if watched is not None:
        watched += [os.path.join(images.root, folder) for folder in found.folders]
    if found.spelt:
        log.warning("data: %d images %s", len(found.spelt), found.told())
        names = Names(found.spelt.get(name, name) for name in images.names)
        images = FileImages(images.root, images.classes, images.labels, names)
    images.missing, images.absent = _missing(images, found), len(images) if found.denied else len(found.missing)
    return images


def _missing(images: FileImages, found: Located) -> str:
    """Says how many of the files are not there, and the first few, a line each; empty if all are."""
    denied = list(found.denied.items())[:NAMED]
    lines = [f"data: {images.root / folder} cannot be read: {why}" for folder, why in denied]
    if found.missing:
        lines.append(
            f"data: {len(found.missing)} of {len(images)} images that are listed are not there (paths start from "
            f"data.root, {images.root}):"
        )
        lines += [f"{images.path(number)}: no such image{found.near(number)}" for number in found.missing[:NAMED]]
    if len(found.missing) > NAMED:
        lines.append(f"and {len(found.missing) - NAMED} more")
    return "\n".join(lines)


def faults_of(train: LabelledImages, val: LabelledImages, max_unreadable: int = 0) -> str:
    """Lists what is wrong with images in files, a line each; empty if nothing is.

    That is those that a list names and that are not there, and those that are broken. Logs it of training images, if no
    more than ``max_unreadable`` of them are missing or broken.
    """
    in_files = [images for images in (train, val) if isinstance(images, InFiles)]
    for look in (lambda images: (images.missing, images.absent), _broken):
        found = [(images, *look(images)) for images in in_files]
        faults = [text for images, text, count in found if count > (max_unreadable if images is train else 0)]
        if faults:
            return "\n".join(faults)
        for text in (text for _, text, _ in found if text):
            log.warning("%s\nthey are skipped, as data.max_unreadable=%d allows", text, max_unreadable)
    return ""


def warn_of_likenesses(train: LabelledImages, val: LabelledImages) -> None:
    """Logs classes that a person cannot tell apart, images of val that are in train, and images of several classes."""
    if alike := look_alikes(train.classes):
        text = "data: %d classes look like others and are not the same: %s; if they are meant to be, name them alike"
        log.warning(text, sum(map(len, alike)), _alike(train, alike[0]) + (", ..." if len(alike) > 1 else ""))
    if not (isinstance(train, InFiles) and isinstance(val, InFiles)):
        return
    copies = copies_between(train, val)
    if copies.pairs:
        copy, first = copies.pairs[0]
        text = "data: %s images of val are in train as well, with the same content: what is measured on them says "
        text += "nothing about others; the first: %s is %s"
        log.warning(text, copies.count(len(val)), val.path(copy), train.path(first))
    if not train.multi_label and (copies := copies_across(train, train.labels)).pairs:
        copy, first = copies.pairs[0]
        text = "data: %s training images are in several classes, with the same content; the first: %s and %s"
        log.warning(text, copies.count(), train.path(copy), train.path(first))


def warn_of_test(opened: Mapping[str, LabelledImages]) -> None:
    """Logs how many images of test, if it was opened, are in train or val as well, with the same content."""
    test = opened.get("test")
    for split, known in opened.items():
        if split == "test" or not (isinstance(test, InFiles) and isinstance(known, InFiles)):
            continue
        if (copies := copies_between(known, test)).pairs:
            copy, first = copies.pairs[0]
            text = "data: %s images of test are in %s as well, with the same content; the first: %s is %s"
            log.warning(text, copies.count(len(test)), split, test.path(copy), known.path(first))


def with_test(
    opened: Mapping[str, LabelledImages], open_split: Callable[[str], LabelledImages]
) -> tuple[dict[str, LabelledImages], list[str]]:
    """Returns splits with ``test``, which training does not use; or, where it cannot be opened, what says why."""
    try:
        return {**opened, "test": open_split("test")}, []
    except UserError as error:
        return dict(opened), [f"test: none that can be used: {str(error).splitlines()[0]}"]


def counts_of(opened: Mapping[str, LabelledImages]) -> dict[str, dict[str, int]]:
    """Counts the images of each class, by split."""
    return {
        split: dict(zip(images.classes, class_counts(images).tolist(), strict=True)) for split, images in opened.items()
    }


def _alike(images: LabelledImages, names: list[str]) -> str:
    """Names classes with how many images they have and the first."""
    told = []
    for name, shown in zip(names, told_apart(*names), strict=True):
        number = images.classes.index(name)
        own = np.flatnonzero(images.labels[:, number] if images.multi_label else images.labels == number)
        such = f", such as {images.name(int(own[0]))}" if len(own) else ""
        told.append(f"{shown} ({len(own)} training images{such})")
    return " and ".join(told)


def broken_images(images: InFiles) -> str:
    """Lists what is wrong with files that are no images by their headers, a line each; empty if nothing is.

    Warns of those that are huge.
    """
    return _broken(images)[0]


def _broken(images: InFiles) -> tuple[str, int]:
    """Returns what :func:`broken_images` does, and how many they are."""
    looks = look_at_some(len(images), lambda index: _look(images, index))
    if huge := {index: pixels for index, (_, pixels) in looks.items() if pixels > HUGE}:
        index = max(huge, key=huge.__getitem__)
        text = "data: %d images have more than %d million pixels, and take up to 0.6 GB each to be read; "
        text += "the largest, of %d million: %s; make smaller ones of them, unless they are meant"
        log.warning(text, len(huge), HUGE // 10**6, huge[index] // 10**6, images.path(index))
    broken = [fault for fault, _ in looks.values() if fault]
    more = f"and {len(broken) - NAMED} more of the {len(looks)} images looked at"
    return "\n".join([*broken[:NAMED], more] if len(broken) > NAMED else broken), len(broken)


def _look(images: InFiles, index: int) -> tuple[str, int]:
    """Returns what whoever reads the image says of it, empty if its header is fine, and its pixels."""
    try:
        with open_image(images.source(index)) as image:
            return "", image.width * image.height
    except Exception:  # a decoder that meets broken data raises whatever its parsing trips over
        return images.fault(index), 0  # none, if it was the storage that failed, for a moment
