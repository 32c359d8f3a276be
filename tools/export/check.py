"""Whether an exported model says what ours says, in its own runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from engine.task.exportable import Exportable, Run

TOLERANCE = 1e-4
"""Largest difference of a value y, times max(1, |y|)."""


class Differs(Exception):
    """An exported model is not the one that was trained: a defect, and no mistake of the user's."""


def check(model: Exportable, run: Run, batches: Sequence[int]) -> float:
    """Compares batches of each size; whole numbers, such as counts and labels, have to be equal.

    Returns:
        The largest difference that was seen, over max(1, |y|).

    Raises:
        Differs: one is larger than :data:`TOLERANCE`; its text names the output.
    """
    worst = 0.0
    for size in batches:
        inputs = model.samples(size)
        with torch.no_grad():
            expected = [output.numpy() for output in model.reference(*inputs)]
        found = run([value.numpy() for value in inputs])
        for name, ours in zip(model.outputs, expected, strict=True):
            theirs = np.asarray(found[name])
            if theirs.shape != ours.shape:
                raise Differs(f"{name} has the shape {theirs.shape} instead of {ours.shape} for {size} inputs")
            if np.issubdtype(ours.dtype, np.integer):
                if (theirs != ours).any():
                    count = int((theirs != ours).sum())
                    raise Differs(f"{count} of {ours.size} {name} differ for {size} inputs")
                continue
            difference = np.abs(theirs - ours) / np.maximum(1, np.abs(ours))
            if not (difference <= TOLERANCE).all():  # NaN too
                raise Differs(f"{name} differs by up to {np.nanmax(difference):.2g} for {size} inputs")
            worst = max(worst, float(difference.max(initial=0)))
    return worst
