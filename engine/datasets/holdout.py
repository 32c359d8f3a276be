"""A val that is taken from the training images, class by class."""

from __future__ import annotations

import logging
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.datasets.labelled import LabelledImages, class_counts, some
from engine.datasets.sections import SplitData
from engine.errors import UserError

log = logging.getLogger(__name__)

HOW_TO_HOLD_OUT = "data.val_fraction=0.1 would hold out a part of each class's training images"
"""What a message about a missing val advises."""


P = TypeVar("P", bound=LabelledImages)


def part(images: P, config: SplitData, split: str) -> P:
    """Returns what ``split`` (train or val) gets of all training images, see :func:`held_out`.

    Raises:
        UserError: a class is left without training images, which several labels an image can lead to, or val is
            left without images.
    """
    assert config.val_fraction is not None
    held = held_out(images, config.val_fraction, config.split_seed)
    chosen: P = images.subset(np.flatnonzero(held if split == "val" else ~held))
    if not held.any():
        raise UserError("data.val_fraction: no class has two images, so none can be held out; give a val of its own")
    lost = [images.classes[c] for c in np.flatnonzero((class_counts(chosen) == 0) & (class_counts(images) > 0))]
    if lost and split == "train":
        raise UserError(
            f"data.val_fraction: all images that show {lost[0]} would be held out; choose another data.split_seed or a "
            "smaller part"
        )
    if lost:
        log.warning("data.val_fraction: classes of which no image is held out, since they have one: %s", some(lost))
    return chosen


def held_out(images: LabelledImages, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Returns which images are kept from training: (N,).

    Of each class of n images it is ``fraction * n``, rounded, but at least one and at most n - 1: a class of two
    gives one, a class of one none. Which ones follows from the seed and the images' names alone, so that images
    that are added later move few of the others. With several labels an image counts as its rarest class.
    """
    from engine.seed import derive  # imports torch, which looking for folders does without

    groups = rarest_class(images)
    keys = np.array([derive(seed, "held out", images.name(index)) for index in range(len(images))], np.uint64)
    order = np.lexsort((keys, groups))  # class by class, in each by its keys
    counts = np.bincount(groups, minlength=len(images.classes) + 1)
    wanted = np.clip(np.floor(fraction * counts + 0.5), 1, np.maximum(counts - 1, 0)).astype(np.int64)
    starts = np.cumsum(counts) - counts
    place = np.arange(len(order)) - starts[groups[order]]
    chosen = np.zeros(len(order), bool)
    chosen[order] = place < wanted[groups[order]]
    return chosen


def rarest_class(images: LabelledImages) -> NDArray[np.int64]:
    """Returns the class by which an image is split and sampled, (N,): its own, or the rarest of several.

    Of equally rare ones it is the first; images of no class are given the number C.
    """
    if not images.multi_label:
        return images.labels.astype(np.int64)
    by_rarity = np.argsort(class_counts(images), kind="stable")
    shown = images.labels[:, by_rarity] > 0
    return np.where(shown.any(axis=1), by_rarity[shown.argmax(axis=1)], len(images.classes))
