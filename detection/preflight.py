"""What of a detection can be known before it starts: what is wrong with its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from detection.config import DetectionConfig
from detection.data.sections import CocoData
from engine.errors import UserError
from engine.task.preflight import Checked, refusals

if TYPE_CHECKING:
    from engine.task.packing import Packable

NAMED = 1000
"""Ids that are named of each kind of fault."""


def check_inputs(config: DetectionConfig) -> None:
    """Raises a UserError if folders of images, annotation files or weights are not there."""
    if isinstance(config.data, CocoData):
        from detection.data.coco import split_files

        for split in ("train", "val"):
            split_files(config.data, split)
    if config.finetune.weights == "timm" and config.detection.timm_name is not None:
        from engine.model.timm_weights import require_cached

        require_cached(config.detection.timm_name)


def look(config: DetectionConfig) -> Iterator[Checked]:
    """Yields what is found in the data. What is not there at all is raised as a UserError."""
    from detection.data.open import check_data, described, objects_by_class
    from engine.data.batch_plan import BatchLayout

    opened, findings = check_data(config.data, config.augmentation.min_box_pixels)
    errors = [finding.told(NAMED) for finding in findings if finding.fatal]
    if not errors:  # faulty images are not counted
        batch, drop_last = config.training.global_batch_size, config.data.drop_last
        errors = refusals(lambda: BatchLayout(len(opened["train"]), batch, drop_last=drop_last))
    warnings = [*config.questions(), *(finding.told(NAMED) for finding in findings if not finding.fatal)]
    counts = {split: objects_by_class(images.annotations) for split, images in opened.items()}
    yield Checked([described(split, images) for split, images in opened.items()], warnings, errors, counts, opened)


def packable(config: DetectionConfig) -> Mapping[str, Packable]:
    """Returns the splits of a run, to be packed. Raises a UserError if they are not in COCO's format."""
    from detection.data.coco import CocoImages, packable
    from detection.data.open import open_images

    if not isinstance(config.data, CocoData):
        raise UserError(f"data.source: {config.data.source}: only images that lie in files of their own can be packed")
    splits = ("train", "val", *(["test"] if config.data.test is not None else []))
    opened = {split: open_images(config.data, split) for split in splits}
    return {split: packable(images) for split, images in opened.items() if isinstance(images, CocoImages)}
