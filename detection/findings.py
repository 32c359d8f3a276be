"""What is wrong in a data set: one finding a kind, with how often and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import UserError

NAMED = 10
"""Ids that a finding's text names."""


@dataclass(frozen=True)
class Finding:
    """One kind of fault."""

    kind: str
    """A short word for programs, such as ``degenerate``."""
    where: str
    """The file or folder."""
    text: str
    """What is wrong and what becomes of it, to be read after a number."""
    ids: tuple[Any, ...]
    """Ids of all annotations, pictures or categories that it concerns."""
    fatal: bool = False
    """Whether training refuses to start; else it works on what is good."""

    def __str__(self) -> str:
        named = ", ".join(map(str, self.ids[:NAMED])) + (", ..." if len(self.ids) > NAMED else "")
        return f"{self.where}: {len(self.ids)} {self.text} (ids: {named})"


class Findings:
    """Collects findings about one file; kinds without ids are none."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.found: list[Finding] = []

    def add(self, kind: str, text: str, ids: Sequence[Any], fatal: bool = False) -> None:
        """Notes a fault, unless ``ids`` is empty."""
        if len(ids):
            self.found.append(Finding(kind, self.where, text, tuple(ids), fatal))


def refuse_fatal(findings: Sequence[Finding]) -> None:
    """Raises a :class:`UserError` that lists the findings which training cannot go on with, if there are any."""
    fatal = [str(finding) for finding in findings if finding.fatal]
    if fatal:
        raise UserError("\n".join(fatal))
