"""Where a rank is: written by the training loop, read by the thread that watches over it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Phase = Literal[
    "start", "data", "forward", "backward", "reduce", "update", "evaluate", "gather", "measure", "save", "end"
]
"""What a rank may be doing; ``measure`` computes figures of what was gathered, on rank 0 alone."""


class Place(NamedTuple):
    """A point of a run. All ranks pass through the same ones in the same order, so the lesser of two is behind."""

    step: int = 0
    moves: int = 0
    """Phases and collectives begun since the step began: accumulation goes through some phases several times."""
    phase: str = "start"

    def __str__(self) -> str:
        return f"step {self.step} in {self.phase}"


class Heartbeat:
    """The place of this rank, and a count that grows as long as it gets on.

    Only the main thread writes. Each attribute is replaced as a whole, so that reading needs no lock.
    """

    def __init__(self) -> None:
        self.place = Place()
        self.ticks = 0
        self._warming_up = True
        self._first_step: int | None = None

    def at(self, phase: Phase, step: int | None = None) -> None:
        """Begins a phase; without ``step``, one of the same step."""
        place = self.place
        same = step is None or step == place.step
        if self._warming_up and phase != "start" and step is not None:
            self._first_step = step if self._first_step is None else self._first_step
            self._warming_up = step == self._first_step
        self.place = Place(place.step, place.moves + 1, phase) if same else Place(step or 0, 0, phase)
        self.ticks += 1

    def move(self) -> None:
        """Begins a collective, within the same phase: who does not get there is behind those that wait in it."""
        self.place = Place(self.place.step, self.place.moves + 1, self.place.phase)
        self.ticks += 1

    def tick(self) -> None:
        """Says that the phase gets on."""
        self.ticks += 1

    def warm_up(self) -> None:
        """Says that the coming step may take as long as a first one: it compiles."""
        self._warming_up, self._first_step = True, None

    @property
    def slow(self) -> bool:
        """Returns whether this work may be unable to say how it gets on: the start, a compilation, rank 0's figures."""
        return self.place.phase == "measure" or (self._warming_up and self.place.phase not in ("evaluate", "gather"))
