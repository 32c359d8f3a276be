"""What a look at a run's settings and data has found, before it is queued."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.errors import UserError

if TYPE_CHECKING:
    from engine.images.near_duplicates import Pictures


@dataclass(frozen=True)
class Checked:
    """Findings, a line each."""

    lines: list[str] = field(default_factory=list)
    """What is there."""
    warnings: list[str] = field(default_factory=list)
    """What is wrong and can be done without."""
    errors: list[str] = field(default_factory=list)
    """What training would refuse, or end at."""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Images, or objects, of each class, by split."""
    images: Mapping[str, Pictures] = field(default_factory=dict)
    """The splits that were opened, for a closer look."""


def refusals(*checks: Callable[[], object]) -> list[str]:
    """Returns the lines of the UserErrors that ``checks`` raise."""
    lines: list[str] = []
    for check in checks:
        try:
            check()
        except UserError as error:
            lines += str(error).splitlines()
    return lines
