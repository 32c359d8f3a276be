"""Precision over recall as TensorBoard draws it: what is said from each of a row of thresholds on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = 101
"""From 0 to 1; TensorBoard takes at most 127."""
MOST_CLASSES = 20
"""Classes that have a curve of their own, where there are no more; of more only the curve of all is shown."""


def counts_at_thresholds(scores: NDArray, right: NDArray[np.bool_], positives: int) -> NDArray[np.float64]:
    """Returns (6, T): true and false positives, true and false negatives, precision and recall from each threshold on.

    Args:
        scores: (N,) in [0, 1] of N guesses; NaN counts as 0.
        right: (N,) whether each is right.
        positives: what there is to find, guessed or not.
    """
    places = np.minimum((np.nan_to_num(scores) * (THRESHOLDS - 1)).astype(np.int64), THRESHOLDS - 1)
    true, false = (
        np.bincount(places[chosen], minlength=THRESHOLDS)[::-1].cumsum()[::-1].astype(float)
        for chosen in (right, ~right)
    )
    return table(true, false, positives, len(scores) - int(right.sum()))


def table(true: NDArray, false: NDArray, positives: int, negatives: int) -> NDArray[np.float64]:
    """Returns the (6, T) of :func:`counts_at_thresholds` from true and false positives, (T,) each.

    Precision is 1 where nothing is said.
    """
    said = true + false
    precision = np.divide(true, said, out=np.ones_like(true), where=said > 0)
    recall = true / max(1, positives)
    return np.stack([true, false, np.maximum(negatives - false, 0), positives - true, precision, recall])


def of_classes(
    names: list[str], scores: NDArray, right: NDArray[np.bool_], positives: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Returns the curve of all classes together, ``all``, and of few classes that of each that there is to find.

    Args:
        scores, right: (N, C), see :func:`counts_at_thresholds`.
        positives: (C,)
    """
    curves = {"all": counts_at_thresholds(scores.ravel(), right.ravel(), int(positives.sum()))}
    for c, name in enumerate(names) if len(names) <= MOST_CLASSES else ():
        if positives[c]:
            curves[name] = counts_at_thresholds(scores[:, c], right[:, c], int(positives[c]))
    return curves
