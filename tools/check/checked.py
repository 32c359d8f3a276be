"""What a check has found."""

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
    """The lines of the UserErrors that ``checks`` raise."""
    lines: list[str] = []
    for check in checks:
        try:
            check()
        except UserError as error:
            lines += str(error).splitlines()
    return lines
