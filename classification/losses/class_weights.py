"""What the numbers of training images say of how much each class is to count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.datasets.labelled import some
from engine.errors import UserError

Counts = NDArray[np.int64]
"""Training images of each class, (C,)."""
PerClass = NDArray[np.float64]
"""One number a class, (C,)."""


def class_weights(kind: str, counts: Counts, beta: float) -> PerClass:
    """Computes weights of classes with ``counts`` images each (none of them 0), normalised to sum C.

    ``kind`` as in `loss.class_weights`; N counts an image once for each label.
    """
    if kind == "inverse":
        weights = 1 / counts
    elif kind == "effective_number" and beta:
        weights = (1 - beta) / -np.expm1(counts * np.log(beta))  # Cui et al., arXiv:1901.05555
    elif kind == "log":
        weights = np.log1p(counts.sum() / (counts * len(counts)))
    else:
        assert kind in ("none", "effective_number"), f"nothing computes {kind}"
        weights = np.ones(len(counts))
    return weights * (len(counts) / weights.sum())


def positive_weights(counts: Counts, num_images: int) -> PerClass:
    """Divides, for each class, images without the label (one at least) by those with it: both then weigh the same."""
    return np.maximum(num_images - counts, 1) / counts


def log_priors(counts: Counts) -> PerClass:
    """Returns the logarithm of each class's share of the training images."""
    return np.log(counts / counts.sum())


def check_counts(counts: Counts, classes: Sequence[str], key: str) -> Counts:
    """Returns the counts, for what divides by them.

    Raises:
        UserError: a class has none; ``key`` is the setting that needs them.
    """
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise UserError(
            f"{key}: needs training images of every class; without any: {some(empty)}; "
            "add images, remove these classes, or choose another setting"
        )
    return counts


def per_class(values: float | list[float], classes: Sequence[str], key: str) -> PerClass:
    """Returns a number for each class, from one for all or a list in the order of the classes.

    Raises:
        UserError: the list has another length.
    """
    if isinstance(values, list) and len(values) != len(classes):
        raise UserError(f"{key}: {len(values)} numbers for {len(classes)} classes; give one for each, or one for all")
    return np.broadcast_to(np.asarray(values, np.float64), (len(classes),))
