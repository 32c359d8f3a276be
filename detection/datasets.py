"""From the `data` section to annotated pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detection.annotations import AnnotatedPictures
from detection.coco import CocoPictures, compare_categories, read_split, split_files
from detection.data_config import CocoData, ShapesData
from detection.findings import Finding, refuse_fatal
from detection.first_look import look_at_pictures
from detection.shapes import ShapePictures

log = logging.getLogger(__name__)


def open_pictures(data: CocoData | ShapesData, split: str) -> AnnotatedPictures:
    """The pictures of ``split``: train, val or test. What is wrong but can be done without is logged.

    Raises:
        UserError: the data are not there, or not as they should be.
    """
    if isinstance(data, ShapesData):
        return ShapePictures(data, split)
    pictures, findings = read_split(data, split)
    refuse_fatal(findings)
    for finding in findings:
        log.warning("%s", finding)
    return pictures


def require_same_categories(
    data: CocoData | ShapesData, train: AnnotatedPictures, other: AnnotatedPictures, split: str
) -> None:
    """Raises a :class:`engine.errors.UserError` if another split's categories are not those of train."""
    if isinstance(data, CocoData):
        where = str(split_files(data, split)[1])
        refuse_fatal(compare_categories(train.annotations, other.annotations, where))


def check_data(data: CocoData | ShapesData) -> tuple[list[str], list[Finding]]:
    """A line about each split, and everything that is wrong in them.

    Raises:
        UserError: files are missing or are not COCO JSON.
    """
    if isinstance(data, ShapesData):
        return [described(split, ShapePictures(data, split)) for split in ("train", "val")], []
    splits = ["train", "val", *(["test"] if data.test is not None else [])]
    opened = {split: read_split(data, split) for split in splits}
    findings = [finding for pictures, found in opened.values() for finding in [*found, *look_at_pictures(pictures)]]
    train = opened["train"][0]
    for split, (pictures, _) in opened.items():
        if split != "train":
            findings += compare_categories(train.annotations, pictures.annotations, str(split_files(data, split)[1]))
    return [described(split, pictures) for split, (pictures, _) in opened.items()], findings


def look_first(opened: Sequence[AnnotatedPictures]) -> str:
    """Raises a :class:`engine.errors.UserError` about picture files that cannot be used; see there. Returns nothing."""
    refuse_fatal([finding for each in opened if isinstance(each, CocoPictures) for finding in look_at_pictures(each)])
    return ""


def described(split: str, pictures: AnnotatedPictures) -> str:
    """How much there is, in a line."""
    known = pictures.annotations
    empty = int((known.starts[1:] == known.starts[:-1]).sum())
    crowds = int(known.crowd.sum())
    return (
        f"{split}: {len(known)} pictures ({empty} without objects), {len(known.boxes) - crowds} objects of "
        f"{len(known.classes)} classes, {crowds} crowd regions"
    )
