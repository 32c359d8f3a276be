"""What is wrong in a data set: one finding a kind, with how often and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

NAMED = 10
"""Ids that a finding names in a log."""

_OF_CATEGORIES = ("unknown_category", "different_categories", "no_objects", "never_seen")
FOLLOWING = {
    "malformed_category": _OF_CATEGORIES,
    "no_categories": _OF_CATEGORIES,
    "duplicate_category_ids": ("different_categories",),
    "unknown_category": ("no_objects", "never_seen"),
    "no_images": ("unknown_image", "no_objects"),
    "malformed_image": ("no_objects", "never_seen", "unlisted"),
    "missing_images": ("unlisted",),
    "duplicate_image_ids": ("shared_files",),
    "fractions": ("no_objects", "never_seen", "too_small", "other_scale"),
}
"""By the kind of a fatal fault, kinds of findings about the same file that may do no more than follow from it."""


@dataclass(frozen=True)
class Finding:
    """One kind of fault."""

    kind: str
    """A short word for programs, such as ``degenerate``."""
    where: str
    """The file or folder."""
    text: str
    """What is wrong and what becomes of it; to be read after a number, where there are ids."""
    ids: tuple[Any, ...]
    """Ids of all annotations, images or categories that it concerns; empty where it concerns the whole."""
    fatal: bool = False
    """Whether training refuses to start; else it works on what is good."""

    def told(self, named: int) -> str:
        """Formats the finding as a sentence with at most ``named`` ids."""
        if not self.ids:
            return f"{self.where}: {self.text}"
        listed = ", ".join(map(str, self.ids[:named])) + (", ..." if len(self.ids) > named else "")
        return f"{self.where}: {len(self.ids)} {self.text} (ids: {listed})"

    def __str__(self) -> str:
        return self.told(NAMED)


LACKING = ("missing_images", "unreadable", "denied")
"""Kinds of findings about images that cannot be read."""


def forgiven(findings: Sequence[Finding], max_unreadable: int) -> list[Finding]:
    """Returns findings about training images, of which none is fatal of so few that cannot be read."""
    text = f"; skipped, as data.max_unreadable={max_unreadable} allows"
    return [
        replace(finding, text=finding.text + text, fatal=False)
        if finding.kind in LACKING and 0 < len(finding.ids) <= max_unreadable
        else finding
        for finding in findings
    ]


class Findings:
    """Collects findings about one file."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.found: list[Finding] = []

    def add(self, kind: str, text: str, ids: Sequence[Any], fatal: bool = False) -> None:
        """Notes a fault of everything in ``ids``, unless that is empty."""
        if len(ids):
            self.say(kind, text, fatal, ids)

    def say(self, kind: str, text: str, fatal: bool = False, ids: Sequence[Any] = ()) -> None:
        """Notes a fault of everything in ``ids``; without them, of the whole."""
        self.found.append(Finding(kind, self.where, text, tuple(ids), fatal))


def first_causes(findings: Sequence[Finding]) -> list[Finding]:
    """Leaves out findings that may only follow from a fatal one: they can be told once that is mended."""

    def follows(finding: Finding) -> bool:
        return any(
            finding.kind in FOLLOWING.get(cause.kind, ())
            and (finding.where == cause.where or finding.kind == "different_categories")  # which are of two files
            for cause in findings
            if cause.fatal
        )

    return [finding for finding in findings if not follows(finding)]
