"""A closer look at images: those that cannot be decoded, and those of one split that another one shows as well."""

from __future__ import annotations

from collections.abc import Mapping

from engine.data.file_check import InFiles, look_at_some
from engine.data.shards import content_digest
from engine.errors import UserError
from engine.images.file_names import NAMED
from engine.images.near_duplicates import PicturesInFiles, hash_images, splits_alike
from engine.task.preflight import Checked

MOST_CLASSES = 12
"""Classes of which all are told."""
SHOWN = 4


def look_closely(images: Mapping[str, PicturesInFiles], max_unreadable: int = 0) -> Checked:
    """Decodes images of each split, at most some thousands, and looks for those that show the same.

    Those of test that cannot be read are no errors: training reads none of them; nor are as many of train as
    ``max_unreadable`` lets it skip.
    """
    hashed = {split: hash_images(own) for split, own in images.items()}
    errors, warnings = list[str](), list[str]()
    for split, found in hashed.items():
        skipped = split == "test" or (split == "train" and len(found.faults) <= max_unreadable)
        (warnings if skipped else errors).extend(_first(split, [*found.faults.values()]))
    for own in images.values():
        errors.extend(_changed(own))
    seen = ", ".join(f"{own.looked_at} of {len(images[split])} images of {split}" for split, own in hashed.items())
    for (later, earlier), alike in splits_alike(hashed).items():
        # files of the same content are told of elsewhere, of all images
        pairs = [pair for pair in alike if images[later].content(pair[0]) != images[earlier].content(pair[1])]
        if pairs:
            mine, theirs = pairs[0]
            count = f"{len(pairs)} of {len(hashed[later].numbers)}"
            warnings.append(
                f"data: {count} images of {later} look like ones of {earlier}, and may be the same pictures, saved "
                "again: what is measured on them may say nothing about others; the "
                f"first: {images[later].name(mine)} and {images[earlier].name(theirs)}"
            )
    return Checked([f"decoded: {seen}"], warnings, errors)


def _changed(images: PicturesInFiles) -> list[str]:
    """Says how many packed images are others than those that their index is of, and names the first."""
    if not isinstance(images, InFiles) or (digests := images.digests) is None:
        return []

    def differs(index: int) -> bool:
        try:
            return content_digest(images.content(index)) != digests[index]
        except (OSError, UserError):  # told as one that cannot be decoded
            return False

    looks = look_at_some(len(images), differs)
    if not (changed := [index for index, different in looks.items() if different]):
        return []
    text = (
        f"data: {len(changed)} of {len(looks)} images are not those that were packed, so their tar files were changed"
    )
    return [f"{text}: pack the data anew, or copy them whole; the first: {images.path(changed[0])}"]


def _first(split: str, faults: list[str]) -> list[str]:
    """Returns the first faults of a split, and how many more there are."""
    more = len(faults) - NAMED
    return [*faults[:NAMED], f"and {more} more images of {split} that cannot be read"] if more > 0 else faults


def by_class(split: str, counts: Mapping[str, int]) -> str:
    """Says how many there are of each class; of many classes of the largest and the smallest."""
    ends: list[tuple[str, int | None]] = list(counts.items())
    if len(ends) > MOST_CLASSES:
        ordered = sorted(counts.items(), key=lambda item: -item[1])
        ends = [*ordered[:SHOWN], ("…", None), *ordered[-SHOWN:]]
    return f"{split} by class: " + ", ".join(name if count is None else f"{name} {count}" for name, count in ends)
