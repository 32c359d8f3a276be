"""From the `data` section to annotated images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import cast

from detection.data.annotations import AnnotatedImages
from detection.data.coco import CocoImages, read_split
from detection.data.file_check import look_at_images
from detection.data.issues import Finding, first_causes, refuse_fatal
from detection.data.sections import CocoData, ShapesData
from detection.data.split_checks import compare_splits
from detection.data.synthetic_shapes import ShapeImages
from engine.errors import UserError

log = logging.getLogger(__name__)


def open_images(data: CocoData | ShapesData, split: str) -> AnnotatedImages:
    """The images of ``split``: train, val or test. What is wrong but can be done without is logged.

    Raises:
        UserError: the data are not there, or not as they should be.
    """
    if isinstance(data, ShapesData):
        return ShapeImages(data, split)
    images, findings = read_split(data, split)
    _accept(findings)
    return images


def check_data(data: CocoData | ShapesData, least: float) -> tuple[Mapping[str, AnnotatedImages], list[Finding]]:
    """The splits that can be opened, by name, and all that is wrong. ``least`` is as in :func:`compare_splits`."""
    if isinstance(data, ShapesData):
        return {split: ShapeImages(data, split) for split in ("train", "val")}, []
    opened: dict[str, CocoImages] = {}
    findings: list[Finding] = []
    for split in ("train", "val", *(["test"] if data.test is not None else [])):
        try:
            opened[split], found = read_split(data, split)
        except UserError as error:
            where, _, text = str(error).partition(": ")
            found = [Finding("unusable", where, text, (), fatal=True)]
        findings += found
    for images in opened.values():
        findings += look_at_images(images)
    findings += compare_splits(data, opened, least)
    return opened, first_causes(findings)


def look_first(opened: Mapping[str, AnnotatedImages], data: CocoData | ShapesData, least: float) -> str:
    """Looks at splits beside each other, and at the beginnings of image files; logs what can be done without.

    Returns nothing, so that one rank may do it for all. ``least`` is as in :func:`compare_splits`.

    Raises:
        UserError: files cannot be used, or the splits do not fit together.
    """
    if isinstance(data, ShapesData):
        return ""
    coco = {split: cast(CocoImages, images) for split, images in opened.items()}
    findings = [finding for images in coco.values() for finding in look_at_images(images)]
    _accept([*findings, *compare_splits(data, coco, least)])
    return ""


def _accept(findings: Sequence[Finding]) -> None:
    """Refuses those that are fatal, and logs the others."""
    refuse_fatal(findings)
    for finding in findings:
        log.warning("%s", finding)


def described(split: str, images: AnnotatedImages) -> str:
    """How much there is, in a line."""
    known = images.annotations
    empty = int((known.starts[1:] == known.starts[:-1]).sum())
    crowds = int(known.crowd.sum())
    return (
        f"{split}: {len(known)} images ({empty} without objects), {len(known.boxes) - crowds} objects of "
        f"{len(known.classes)} classes, {crowds} crowd regions"
    )
