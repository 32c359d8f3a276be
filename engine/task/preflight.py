"""What a look at a run's settings and data has found, before it is queued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.errors import UserError


@dataclass(frozen=True)
class Checked:
    """Findings, a line each."""

    lines: list[str] = field(default_factory=list)
    """What is there."""
    warnings: list[str] = field(default_factory=list)
    """What is wrong and can be done without."""
    errors: list[str] = field(default_factory=list)
    """What training would refuse, or end at."""


def refusals(*checks: Callable[[], object]) -> list[str]:
    """Returns the lines of the UserErrors that ``checks`` raise."""
    lines: list[str] = []
    for check in checks:
        try:
            check()
        except UserError as error:
            lines += str(error).splitlines()
    return lines
