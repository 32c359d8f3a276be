"""Whether an exported model says what ours says, in its own runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from engine.exported.exportable import Differs, Exportable, Run

TOLERANCE = 1e-4
"""Largest difference of a value y, times max(1, |y|)."""


def check(model: Exportable, run: Run, batches: Sequence[int]) -> float:
    """Compares batches of each size; whole numbers have to be equal.

    Returns:
        The largest difference that was seen, over max(1, |y|).

    Raises:
        Differs: one is larger than :data:`TOLERANCE`; its text names the output.
    """
    worst = 0.0
    for size in batches:
        inputs = model.samples(size)
        with torch.no_grad():
            outputs = [output.numpy() for output in model.reference(*inputs)]
        expected = dict(zip(model.outputs, outputs, strict=True))
        found = {name: np.asarray(values) for name, values in run([value.numpy() for value in inputs]).items()}
        for name, ours in expected.items():
            theirs = found[name]
            if theirs.shape != ours.shape:
                raise Differs(f"{name} has the shape {theirs.shape} instead of {ours.shape} for {size} inputs")
        if model.compare is not None:
            worst = max(worst, model.compare(inputs, found, TOLERANCE))
            continue
        for name, ours in expected.items():
            theirs = found[name]
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
