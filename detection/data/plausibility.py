"""Numbers that are possible and cannot be meant: boxes and labels of another convention, known by their statistics."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detection.data.annotations import Annotations
from detection.data.issues import Findings

Columns = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

READINGS: dict[str, Callable[..., Columns]] = {
    "[left, top, right, bottom]": lambda a, b, c, d: (a, b, c, d),
    "[centre x, centre y, width, height]": lambda a, b, c, d: (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    "[top, left, height, width]": lambda a, b, c, d: (b, a, b + d, a + c),
    "[top, left, bottom, right]": lambda a, b, c, d: (b, a, d, c),
}
"""What other tools mean by four numbers: left, top, right and bottom sides."""

FEW = 4
"""Boxes, at least, by which a convention is judged."""
NEARLY_ALL = 0.99
"""Part of the boxes that has to fit as something else for it to be named."""
SLACK = 1.0
"""Pixels by which a box may reach out of its image and still fit it."""
ODD = 0.05
"""Part of the boxes that has to fit their images badly before there is a word."""
CORNER = 0.75
"""Part of the image, both ways, beyond which there is no box where they are suspected of a smaller size."""
NEVER, SELDOM = 1e-6, 1e-3
"""Chance of boxes to lie so by themselves: by what is known of images at large, and of the training images."""


def check_boxes(
    given: NDArray[np.float64],
    images: NDArray[np.int64],
    sizes: NDArray[np.int64],
    ids: NDArray[np.object_],
    findings: Findings,
) -> None:
    """Finds boxes that are no ``[left, top, width, height]`` in pixels of their image, by all of a file together.

    Args:
        given: (T, 4) as they stand in the file, with width and height above 0.
        images: (T,) number of each box's image.
        sizes: (T, 2) width and height of each box's image.
        ids: (T,) what the file calls them.
    """
    if len(given) and given.max() <= 1 and (given % 1).any():
        text = (
            "boxes, which are all, have numbers from 0 to 1: fractions of their images, it seems; bbox is [left, top, "
            "width, height] in pixels, so multiply by the image's width and height"
        )
        findings.add("fractions", text, ids.tolist(), fatal=True)
    if len(given) < FEW or given.max() <= 1:
        return
    left, top, width, height = columns = given.T
    right, bottom = left + width, top + height
    reach = np.stack([right, bottom], axis=1) / sizes
    odd = ~_fit((left, top, right, bottom), sizes)
    others = [name for name, read in READINGS.items() if _fit(read(*columns), sizes).mean() >= NEARLY_ALL]
    extent = reach.max(axis=0).clip(NEVER)
    if odd.sum() >= max(2, ODD * len(odd)) and others:
        text = (
            f"boxes of {len(odd)} do not fit their images as [left, top, width, height], which bbox is, but all fit as "
            f"{' or as '.join(others)}: that is what they seem to be; convert them"
        )
        findings.add("other_convention", text, ids[odd].tolist())
    elif odd.sum() >= max(2, 2 * ODD * len(odd)) and (beyond := np.median(reach[odd].max(axis=1))) > 1 + ODD:
        text = (
            f"boxes of {len(odd)} end outside their images, half of them at {beyond:.2g} times the side or further: "
            "they seem to be in pixels of another size than `width` and `height`; scale them"
        )
        findings.add("other_scale", text, ids[odd].tolist())
    elif extent.max() <= CORNER and len(np.unique(images)) * math.log(extent.prod()) < math.log(NEVER):
        findings.say("other_scale", _in_a_corner(extent))


def _fit(sides: Columns, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    left, top, right, bottom = sides
    within = (right <= sizes[:, 0] + SLACK) & (bottom <= sizes[:, 1] + SLACK)
    return within & (left >= -SLACK) & (top >= -SLACK) & (right > left) & (bottom > top)


def _in_a_corner(extent: NDArray[np.float64]) -> str:
    return (
        f"all boxes lie in the left {extent[0]:.0%} and the upper {extent[1]:.0%} of their images: they seem to be in "
        "pixels of a smaller size than `width` and `height`; scale them"
    )


def compare_with_train(train: Annotations, other: Annotations, findings: Findings) -> None:
    """Finds boxes and labels of another split that are not as train's are."""
    extents, theirs = _extents(train), _extents(other)
    if len(extents) and len(theirs):
        most = theirs.max(axis=0)
        alike = ((extents <= most).all(axis=1).sum() + 1) / (len(extents) + 2)
        reach = np.minimum(extents.max(axis=0), 1.0)  # what boxes in another convention reach beyond is no image
        if (most <= CORNER * reach).all() and len(theirs) * math.log(alike) < math.log(SELDOM):
            findings.say("other_scale", f"{_in_a_corner(most)} (train's reach further)")
    known, seen = ({part.category_ids[k] for k in np.unique(part.labels[~part.crowd])} for part in (train, other))
    count = int((~other.crowd).sum())
    if len(seen) == 1 and len(known) > 1 and count > 1:
        only = next(iter(seen))
        name = f"{other.names[only]!r} (id {only})"
        findings.say("one_category", f"all {count} objects are of one category, {name}; train has {len(known)}")
    if known and (hint := off_by_one(seen - known and seen, known)):
        text = f"categories have objects here and none in train, which would know them all if they were {hint}"
        findings.add("off_by_one", text, sorted(seen - known))


def _extents(known: Annotations) -> NDArray[np.float64]:
    """How far right and down the boxes of each image that has some reach, (N, 2), as parts of its sides."""
    counts = np.diff(known.starts)
    owners = np.repeat(np.arange(len(known)), counts)
    ends = known.boxes[:, 2:] / known.sizes[owners]
    there = known.starts[:-1][counts > 0]
    return np.maximum.reduceat(ends, there) if len(there) else ends


def off_by_one(given: set, known: set) -> str:
    """Says which way ids are one off, if all that are ``given`` would be ``known`` then; else nothing."""
    if given and all(isinstance(i, int) for i in given):
        for step, hint in ((1, "one higher (numbered from 0?)"), (-1, "one lower (numbered from 1?)")):
            if {i + step for i in given} <= known:
                return hint
    return ""
