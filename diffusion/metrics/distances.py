"""What is measured between single images in a space of features: kernels, nearest neighbours.

All of it is float64, so that it depends neither on batches nor on the number of ranks but for the last digits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.distributed.ranks import Ranks
from engine.seed import generator

ROWS = 1024
"""Features whose distances to all others are held at a time."""
NEIGHBOURS = 3
"""k of precision and recall, as in the paper."""
SUBSETS, SUBSET_SIZE = 100, 1000
"""Of the kernel distance, as is usual for KID."""


def kernel_distance(one: Tensor, other: Tensor, ranks: Ranks) -> float:
    """Returns the squared maximum mean discrepancy, unbiased, of the kernel (x y / F + 1)^3 (KID: Binkowski et al.,
    "Demystifying MMD GANs", ICLR 2018). It may be a little less than 0.

    The mean over 100 subsets of 1000 that are always the same; sets that are no larger are compared as a whole.

    Args:
        one: (N, F), N at least 2.
        other: (M, F), M at least 2.
        ranks: Every one of them has the same features, and does a part.
    """
    sizes = [min(len(features), SUBSET_SIZE) for features in (one, other)]
    count = 1 if sizes == [len(one), len(other)] else SUBSETS
    found = one.new_zeros(count, dtype=torch.float64)
    for subset in range(ranks.rank, count, ranks.world_size):
        ranks.heartbeat.tick()
        chosen = [
            features[torch.from_numpy(_subset(len(features), size, subset, name)).to(features.device)].double()
            for features, size, name in zip((one, other), sizes, ("one", "other"), strict=True)
        ]
        found[subset] = _discrepancy(*chosen)
    return float(ranks.sum_(found).mean())


def _subset(total: int, size: int, number: int, name: str) -> NDArray[np.int64]:
    """Returns which `size` of `total` rows make a subset."""
    return generator("kernel_distance", name, number).choice(total, size, replace=False)


def _discrepancy(x: Tensor, y: Tensor) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def among(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return among(x) + among(y) - 2 * kernel(x, y).mean()


def precision_recall(samples: Tensor, reference: Tensor, ranks: Ranks, neighbours: int = NEIGHBOURS) -> list[float]:
    """Returns improved precision and recall (Kynkäänniemi et al., arXiv:1904.06991).

    Precision is the share of samples that lie no farther from some reference image than this from its `neighbours`-th
    nearest one: realistic ones. Recall is the same with roles exchanged: the share of the reference that is covered.

    Args:
        samples: (N, F), N more than `neighbours`.
        reference: (M, F), M more than `neighbours`.
        ranks: Every one of them has the same features, and does a part.
        neighbours: k.
    """
    shares = []
    for points, centres in ((samples, reference), (reference, samples)):
        radii = _radii(centres, neighbours, ranks)
        inside = torch.zeros(1, dtype=torch.float64, device=points.device)
        for rows in _own_rows(len(points), ranks):
            inside += (squared_distances(points[rows], centres) <= radii).any(1).sum()
        shares.append(float(ranks.sum_(inside)) / len(points))
    return shares


def _radii(points: Tensor, neighbours: int, ranks: Ranks) -> Tensor:
    """Returns the squared distance (N,) of each point to its `neighbours`-th nearest one."""
    radii = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    for rows in _own_rows(len(points), ranks):
        distances = squared_distances(points[rows], points)
        numbers = torch.arange(len(points), device=points.device)
        distances.masked_fill_(numbers[rows, None] == numbers, torch.inf)  # each is no neighbour of itself
        radii[rows] = distances.topk(neighbours, largest=False).values[:, -1]
    return ranks.sum_(radii)


def _own_rows(count: int, ranks: Ranks) -> Iterator[slice]:
    """Yields this rank's blocks of `count` rows."""
    for first in range(ranks.rank * ROWS, count, ranks.world_size * ROWS):
        ranks.heartbeat.tick()
        yield slice(first, min(first + ROWS, count))


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """Returns the squared Euclidean distances (N, M), float64, of rows (N, F) and (M, F)."""
    one, other = one.double(), other.double()
    norms = one.square().sum(1)[:, None] + other.square().sum(1)
    return (norms - 2 * one @ other.T).clamp(min=0)


class Nearest:
    """The nearest of many images, which come in batches and on several ranks, to each of some."""

    def __init__(self, features: Tensor) -> None:
        """Takes the features (N, F) of those whose nearest ones are looked for; the same on every rank."""
        self._features = features
        self._distances = features.new_full((len(features),), torch.inf, dtype=torch.float64)
        self._indices = torch.full((len(features),), -1, device=features.device)

    def add(self, indices: Tensor, features: Tensor) -> None:
        """Looks at images by their numbers (B,) and features (B, F)."""
        found, places = squared_distances(self._features, features).min(1)
        nearer = found < self._distances
        self._distances = torch.where(nearer, found, self._distances)
        self._indices = torch.where(nearer, indices.to(places.device)[places], self._indices)

    def over_ranks(self, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """Returns distances (N,), not squared, and numbers (N,) of the nearest images of all ranks."""
        distances, indices = (ranks.gather_rows(part[None]) for part in (self._distances, self._indices))
        least, place = distances.min(0)
        return least.sqrt(), indices.gather(0, place[None])[0]
