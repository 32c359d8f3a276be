"""Which training images an epoch takes, and how often, where classes are of very different sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.data.batch_plan import NaturalOrder, Order
from engine.datasets.holdout import rarest_class
from engine.datasets.labelled import LabelledImages
from engine.datasets.sections import CommonData
from engine.seed import generator


def build_order(config: CommonData, images: LabelledImages, seed: int) -> Order:
    """Builds the configured order of the training images, a function of (seed, epoch) alone."""
    if config.sampling == "natural" and config.oversample is None:
        return NaturalOrder(len(images), seed)
    groups = rarest_class(images)
    sizes = np.bincount(groups)
    if config.oversample is not None:
        quotas = np.where(sizes > 0, np.maximum(sizes, math.ceil(config.oversample * sizes.max())), 0)
    else:
        quotas = shares(sizes, np.sign(sizes) if config.sampling == "balanced" else np.sqrt(sizes))
    return QuotaOrder(groups, quotas, seed)


def shares(sizes: NDArray[np.int64], weights: NDArray[np.number]) -> NDArray[np.int64]:
    """Draws of each class in an epoch that is as long as there are images: (C,), in proportion to ``weights``.

    Fractions are rounded down, and up for those with the largest, so that the sum stays that of ``sizes``.
    """
    exact = weights / weights.sum() * sizes.sum()
    rounded = np.floor(exact + 1e-9).astype(np.int64)
    largest = np.argsort(rounded - exact, kind="stable")[: sizes.sum() - rounded.sum()]
    rounded[largest] += 1
    return rounded


@dataclass(frozen=True, eq=False)
class QuotaOrder:
    """Of each class the same number of draws in every epoch, in random order.

    A class's draws go through all its images in random order, then through all of them in another, and so on over
    epochs: any two have been drawn equally often, or one once more. Each draw has a position of its own, so that a
    image that is drawn several times in an epoch is augmented differently each time.
    """

    groups: NDArray[np.int64]
    """Class of each image, (N,)."""
    quotas: NDArray[np.int64]
    """Draws of each class in an epoch, (C,)."""
    seed: int

    @property
    def num_samples(self) -> int:
        """Draws of an epoch, over all classes."""
        return int(self.quotas.sum())

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        members = np.split(np.argsort(self.groups, kind="stable"), np.cumsum(np.bincount(self.groups))[:-1])
        drawn = [own[self._draws(number, len(own), epoch)] for number, own in enumerate(members) if self.quotas[number]]
        return generator(self.seed, "order", epoch).permutation(np.concatenate(drawn))

    def _draws(self, number: int, size: int, epoch: int) -> NDArray[np.int64]:
        """Returns which of a class's ``size`` images ``epoch`` takes: the next ``quota`` of endless shuffles."""
        quota = int(self.quotas[number])
        first, skipped = divmod(epoch * quota, size)
        last, end = divmod((epoch + 1) * quota, size)
        if first == last:
            return self._shuffle(number, size, first)[skipped:end]
        rest, begun = self._shuffle(number, size, first)[skipped:], self._shuffle(number, size, last)[:end]
        return np.concatenate([rest, np.tile(np.arange(size), last - first - 1), begun])  # shuffled with the epoch

    def _shuffle(self, number: int, size: int, turn: int) -> NDArray[np.int64]:
        return generator(self.seed, "class order", number, turn).permutation(size)
