"""Images that somebody asks for, and how their numbers are cut into blocks that are the same for every request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """N images: each follows from the seed, its number, its class, and how it is sampled."""

    count: int
    seed: int
    classes: tuple[int, ...] = ()
    """In turn those of the images; none: of a network that is told none."""

    def label(self, image: int) -> int:
        """Returns the class of an image, also of one beyond the last; 0 without classes."""
        return self.classes[image % len(self.classes)] if self.classes else 0

    def blocks(self, size: int, rank: int = 0, world_size: int = 1) -> list[range]:
        """Returns the images of each block of ``size`` that is this rank's to sample, the last one's beyond the end."""
        return [range(first, first + size) for first in range(rank * size, self.count, world_size * size)]
