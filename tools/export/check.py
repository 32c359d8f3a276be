"""Whether an exported model says what ours says, in its own runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from engine.task.exportable import Exportable, Outputs, Run

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
            outputs = [output.numpy() for output in model.reference(*inputs)]
        expected = dict(zip(model.outputs, outputs, strict=True))
        found = in_our_order(run([value.numpy() for value in inputs]), expected)
        for name, ours in expected.items():
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


def in_our_order(found: Outputs, ours: Outputs) -> Outputs:
    """Returns detections whose scores are alike but for rounding, which decided their order, in the order of ours.

    What has no match, and every other output, stays as it is.
    """
    found = {name: np.array(values) for name, values in found.items()}
    alike_shapes = all(found[name].shape == values.shape for name, values in ours.items())
    if "counts" not in ours or not alike_shapes or (found["counts"] != ours["counts"]).any():
        return found
    for image, count in enumerate(ours["counts"].tolist()):
        own, theirs = ({name: each[name][image] for name in ("boxes", "scores", "labels")} for each in (ours, found))
        order: list[int] = []
        for row in range(count):
            alike = np.abs(theirs["scores"][:count] - own["scores"][row]) <= TOLERANCE
            alike &= theirs["labels"][:count] == own["labels"][row]
            alike[order] = False
            if not alike.any():
                break
            far = np.abs(theirs["boxes"][:count] - own["boxes"][row]).max(axis=1)
            order.append(int(np.where(alike, far, np.inf).argmin()))
        else:
            for values in theirs.values():
                values[:count] = values[order]
    return found
