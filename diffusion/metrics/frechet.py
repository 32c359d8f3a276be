"""Frechet distance between two sets of features, each taken for a normal distribution (Dowson and Landau, 1982).

With the features of Inception it is FID (Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a
Local Nash Equilibrium", NeurIPS 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.distributed.ranks import Ranks


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of features, float64."""

    count: int
    """Images that they are of, at least 2."""
    mean: Tensor
    """(F,)."""
    covariance: Tensor
    """(F, F), over count - 1."""


class Moments:
    """Sums of features over images, in float64: what is added may come in batches of any size, on any rank."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._count = torch.zeros(1, dtype=torch.float64, device=device)
        self._sum = torch.zeros(width, dtype=torch.float64, device=device)
        self._products = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Adds features (B, F)."""
        features = features.double()
        self._count += len(features)
        self._sum += features.sum(0)
        self._products += features.T @ features

    def over_ranks(self, ranks: Ranks) -> Gaussian:
        """Returns mean and covariance over the images of all ranks; every rank calls it once."""
        count, total, products = (ranks.sum_(part) for part in (self._count, self._sum, self._products))
        mean = total / count
        covariance = (products - count * torch.outer(mean, mean)) / (count - 1)
        return Gaussian(int(count), mean, (covariance + covariance.T) / 2)


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """Returns |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of means and covariances; NaN where they are not finite.

    The last trace is that of the singular values of R1^T R2, where C = R R^T: unlike the roots of the eigenvalues of
    C1 C2, they are exact to all digits where there are fewer images than features, and these values 0.
    """
    parts = (one.mean, one.covariance, other.mean, other.covariance)
    if not all(part.isfinite().all() for part in parts):
        return math.nan
    between = (one.mean - other.mean).square().sum()
    within = one.covariance.trace() + other.covariance.trace()
    common = torch.linalg.svdvals(_root(one).T @ _root(other)).sum()
    return float((between + within - 2 * common).clamp(min=0))


def _root(gaussian: Gaussian) -> Tensor:
    """Returns R (F, F) with R R^T = covariance; what is rounding of a variance 0 is 0 in it."""
    values, vectors = torch.linalg.eigh(gaussian.covariance)
    scale = values[-1] + gaussian.mean.square().sum()
    least = len(values) * torch.finfo(values.dtype).eps * scale
    return vectors * values.where(values > least, 0).sqrt()
