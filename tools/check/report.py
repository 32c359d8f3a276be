"""What a check has found, as lines for people and as JSON for programs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from engine.task.preflight import Checked

REFUSED = "training would refuse to start, or end before its time"
FINE = "nothing found that would stop the run"


@dataclass
class Report:
    """Collects findings, and prints each as it comes."""

    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    """By what they are about: data, memory, time and so on."""
    lines: list[str] = field(default_factory=list)

    def tell(self, about: str, checked: Checked) -> None:
        """Takes what was found ``about`` something. What was said before is not said again."""
        for line in checked.lines:
            self.lines.append(f"{about}: {line}")
            print(self.lines[-1], flush=True)
        for warning in checked.warnings:
            self.warn(warning)
        for error in checked.errors:
            if error not in self.errors:
                self.errors.append(error)
                print(f"error: {error}", file=sys.stderr, flush=True)

    def warn(self, warning: str) -> None:
        """Takes a warning."""
        if warning not in self.warnings:
            self.warnings.append(warning)
            print(f"warning: {warning}", flush=True)

    def leave_out(self, what: Sequence[str], why: str) -> None:
        """Says what was not looked at."""
        self.not_checked += [f"{each}: {why}" for each in what]
        print(f"not checked: {', '.join(what)}: {why}", flush=True)

    @property
    def verdict(self) -> str:
        """Returns the one line that counts."""
        if self.errors:
            return REFUSED
        told = [f"{len(self.warnings)} warning{'s' if len(self.warnings) > 1 else ''}"] if self.warnings else []
        told += (
            [f"{len(self.not_checked)} thing{'s' if len(self.not_checked) > 1 else ''} not checked"]
            if self.not_checked
            else []
        )
        return f"{FINE}; {' and '.join(told)}" if told else FINE

    def as_json(self) -> dict[str, Any]:
        """Returns all of it as plain values."""
        return {
            "verdict": "refused" if self.errors else "fine",
            "errors": self.errors,
            "warnings": self.warnings,
            "not_checked": self.not_checked,
            **self.figures,
        }


class _Warnings(logging.Handler):
    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "py.warnings":
            self._tell(record.getMessage())


@contextmanager
def told_of_warnings(tell: Callable[[str], object]) -> Iterator[None]:
    """Has ``tell`` called with each warning that is logged."""
    handler = _Warnings(tell)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
