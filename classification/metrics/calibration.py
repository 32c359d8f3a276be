"""Whether probabilities are what they say: of images said with 80 %, 80 % should be right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Images in M groups of equal width by the probability of the class that was said."""

    edges: Floats
    """(M + 1,): group m holds probabilities above edges[m], up to and with edges[m + 1]."""
    counts: NDArray[np.int64]
    """(M,) images."""
    confidence: Floats
    """(M,) mean probability; NaN without images."""
    accuracy: Floats
    """(M,) part of the images that were right; NaN without images."""

    @property
    def error(self) -> float:
        """Returns the expected calibration error (Guo et al., arXiv:1706.04599, equation 3).

        It is the mean over images of their group's gap between probability and accuracy.
        """
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.counts) / max(self.counts.sum(), 1))


def calibration(confidence: Floats, right: NDArray[np.bool_], groups: int) -> Calibration:
    """Groups N images by their probabilities.

    Args:
        confidence: (N,) probability in [0, 1] of the class that was said.
        right: (N,) whether it is the true one.
    """
    edges = np.linspace(0, 1, groups + 1)
    group = np.digitize(confidence, edges[1:-1], right=True)
    counts = np.bincount(group, minlength=groups)

    def mean(values: NDArray) -> Floats:
        sums = np.bincount(group, weights=values, minlength=groups)
        return np.divide(sums, counts, out=np.full(groups, np.nan), where=counts > 0)

    return Calibration(edges, counts, mean(confidence), mean(right.astype(np.float64)))
