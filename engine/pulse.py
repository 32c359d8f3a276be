"""Where a rank is: written by the training loop, read by the thread that watches over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, TypeVar

Phase = Literal["start", "data", "forward", "backward", "reduce", "update", "evaluate", "gather", "save", "end"]
"""What a rank may be doing."""

T = TypeVar("T")


class Place(NamedTuple):
    """A point of a run. All ranks pass through the same ones in the same order, so the lesser of two is behind."""

    step: int = 0
    moves: int = 0
    """Phases begun since the step began: accumulation goes through some of them several times."""
    phase: str = "start"

    def __str__(self) -> str:
        return f"step {self.step} in {self.phase}"


class Pulse:
    """The place of this rank, and a count that grows as long as it gets on.

    Only the main thread writes. Each attribute is replaced as a whole, so that reading needs no lock.
    """

    def __init__(self) -> None:
        self.place = Place()
        self.ticks = 0

    def at(self, phase: Phase, step: int | None = None) -> None:
        """A phase begins; without ``step``, one of the same step."""
        place = self.place
        same = step is None or step == place.step
        self.place = Place(place.step, place.moves + 1, phase) if same else Place(step or 0, 0, phase)
        self.ticks += 1

    def tick(self) -> None:
        """The phase gets on."""
        self.ticks += 1

    def watch_iterable(self, iterable: Iterable[T]) -> Iterator[T]:
        """The items of ``iterable``, with a tick for each that has come."""
        for item in iterable:
            self.tick()
            yield item
