"""From the `data` section to annotated images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from detection.data.annotations import AnnotatedImages, Annotations
from detection.data.coco import CocoImages, open_packed, read_split
from detection.data.issues import Finding, first_causes
from detection.data.sections import DataConfig, ShapesData, ShardData
from detection.data.split_checks import check_splits
from detection.data.synthetic_shapes import ShapeImages
from engine.data.shards import Shards, stage_on_nodes
from engine.datasets.shard_images import INDEX
from engine.distributed.ranks import Ranks
from engine.errors import UserError

log = logging.getLogger(__name__)


def open_images(data: DataConfig, split: str) -> AnnotatedImages:
    """Opens the images of ``split``: train, val or test. What is wrong but can be done without is logged.

    Raises:
        UserError: the data are not there, or not as they should be.
    """
    if isinstance(data, ShapesData):
        return ShapeImages(data, split)
    if isinstance(data, ShardData):
        return open_packed(data.root, split)
    images, findings = read_split(data, split)
    _accept(findings)
    return images


def prepare_on_all(data: DataConfig, ranks: Ranks) -> None:
    """Copies shards to each node, if they are to be staged."""
    if isinstance(data, ShardData) and data.stage:
        stage_on_nodes(partial(_packed, data.root), ranks)


def _packed(root: Path) -> Iterator[Shards]:
    """Yields the shards of each split that is there."""
    for split in ("train", "val", "test"):
        if (root / INDEX.format(split)).exists() and (shards := open_packed(root, split).shards):
            yield shards


def check_data(data: DataConfig, least: float) -> tuple[Mapping[str, AnnotatedImages], list[Finding]]:
    """Returns the splits that can be opened, by name, and all that is wrong; ``least`` as in :func:`check_splits`."""
    if isinstance(data, ShapesData):
        return {split: ShapeImages(data, split) for split in ("train", "val")}, []
    opened: dict[str, CocoImages] = {}
    findings: list[Finding] = []
    if isinstance(data, ShardData):
        opened |= {split: open_packed(data.root, split) for split in ("train", "val")}
        if (data.root / INDEX.format("test")).exists():
            opened["test"] = open_packed(data.root, "test")
        return opened, check_splits(data, opened, least)
    for split in ("train", "val", *(["test"] if data.test is not None else [])):
        try:
            opened[split], found = read_split(data, split)
        except UserError as error:
            where, _, text = str(error).partition(": ")
            found = [Finding("unusable", where, text, (), fatal=True)]
        findings += found
    return opened, first_causes([*findings, *check_splits(data, opened, least)])


def look_first(opened: Mapping[str, AnnotatedImages], data: DataConfig, least: float) -> None:
    """Refuses or logs what :func:`check_splits` finds.

    Raises:
        UserError: files cannot be used, or the splits do not fit together.
    """
    if not isinstance(data, ShapesData):
        _accept(check_splits(data, cast(Mapping[str, CocoImages], opened), least))


def _accept(findings: Sequence[Finding]) -> None:
    """Raises a :class:`UserError` that lists those that are fatal, if there are any; logs the others."""
    if fatal := [str(finding) for finding in findings if finding.fatal]:
        raise UserError("\n".join(fatal))
    for finding in findings:
        log.warning("%s", finding)


def described(split: str, images: AnnotatedImages) -> str:
    """Says in a line how much there is."""
    known = images.annotations
    empty = int((known.starts[1:] == known.starts[:-1]).sum())
    crowds = int(known.crowd.sum())
    return (
        f"{split}: {len(known)} images ({empty} without objects), {len(known.boxes) - crowds} objects of "
        f"{len(known.classes)} classes, {crowds} crowd regions"
    )


def objects_by_class(known: Annotations) -> dict[str, int]:
    """Counts the objects of each class, but for crowd regions."""
    counts = np.bincount(known.labels[~known.crowd], minlength=len(known.classes))
    return dict(zip(known.classes, counts.tolist(), strict=True))
