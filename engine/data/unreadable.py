"""Files that cannot be read: those that storage gives after a while, and images that are skipped."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UserError

if TYPE_CHECKING:
    from engine.data.batch_plan import Draw
    from engine.distributed.ranks import Ranks

log = logging.getLogger(__name__)

TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""What a network's file system says while a server of its restarts."""
PAUSES = (0.1, 5.0)
"""Seconds of the first pause before another try, and of the longest."""
MOST_REPLACED = 100
"""Images in a row, of which none can be read, after which it is given up to find another one."""
NAMED = 5
"""Files that are named; after these, when their number has doubled."""


class UnreadableError(UserError):
    """An image cannot be read."""

    def __init__(self, text: str, file: str = "") -> None:
        super().__init__(text)
        self.file = file or text.partition(":")[0]


class StorageError(UnreadableError):
    """It cannot be read now."""


def storage_error(file: Path, error: OSError) -> StorageError:
    """Returns what to raise where the storage fails."""
    text = f"{file}: cannot be read ({error.strerror}): the storage failed; see data.read_timeout_seconds"
    return StorageError(text, str(file))


@dataclass
class Troubles:
    """What reading has come to, counted in the process that takes the batches."""

    retries: int = 0
    unreadable: set[str] = field(default_factory=set)
    """Files of images that were skipped."""
    told: set[str] = field(default_factory=set)

    def tell_once(self, text: str) -> None:
        """Logs a text the first time that it comes."""
        if text and text not in self.told:
            self.told.add(text)
            log.warning("%s", text)

    def note(self, told: list[tuple[str, bool]]) -> None:
        """Counts and tells what has happened to a batch: files, and whether they were skipped, else tried again."""
        for file, skipped in told:
            if not skipped:
                self.retries += 1
                if _worth_a_word(self.retries):
                    text = "data: %s could not be read at once, the storage failed, and was tried again; %d such so far"
                    log.warning(text, file, self.retries)
            elif file not in self.unreadable:
                self.unreadable.add(file)
                if _worth_a_word(len(self.unreadable)):
                    text = "data: %s cannot be read: another image takes its place; %d such so far"
                    log.warning(text, file, len(self.unreadable))


def _worth_a_word(count: int) -> bool:
    return count <= NAMED or count & (count - 1) == 0


@dataclass(frozen=True)
class Patience:
    """What is done where an image cannot be read."""

    seconds: float = 0.0
    """How long it is tried again while the storage fails."""
    max_unreadable: int = 0
    """Images of a run that may be skipped; the first one more ends it."""

    def sample(
        self,
        reader: Any,
        draw: Draw,
        told: list[tuple[str, bool]],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Any:
        """Returns a reader's sample of a draw; or, if its image may be skipped, that of the image behind it.

        Which one that is follows from the draw alone.

        Args:
            reader: See :class:`engine.data.workers.SampleReader`.
            draw: What is wanted.
            told: Is given what :meth:`Troubles.note` takes.
            sleep: Waits for some seconds.
            clock: Tells them.

        Raises:
            UserError: it cannot be read, and not be skipped.
        """
        for place in range(MOST_REPLACED):
            index = (draw.index + place) % len(reader) if place else draw.index
            try:
                return self._patiently(lambda own: reader[own], replace(draw, index=index), told, sleep, clock)
            except UnreadableError as error:
                if not self.max_unreadable or place + 1 == MOST_REPLACED:
                    raise
                told.append((error.file, True))
        raise AssertionError

    def _patiently(
        self,
        read: Callable[[Draw], Any],
        draw: Draw,
        told: list[tuple[str, bool]],
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> Any:
        pause, longest = PAUSES
        end = clock() + self.seconds
        while True:
            try:
                return read(draw)
            except StorageError as error:
                if clock() + pause > end:
                    raise
                told.append((error.file, False))
            sleep(pause)
            pause = min(2 * pause, longest)


def require_readable(patience: Patience, troubles: Troubles, ranks: Ranks) -> None:
    """Makes sure that not too many images were skipped, of all ranks together; every rank calls it.

    Raises:
        UserError: they were, on every rank.
    """
    if not patience.max_unreadable:
        return
    files = set[str]().union(*ranks.gather(sorted(troubles.unreadable)))
    if len(files) > patience.max_unreadable:
        first = ", ".join(sorted(files)[:NAMED])
        raise UserError(
            f"data.max_unreadable: {len(files)} images cannot be read, more than {patience.max_unreadable}; the first: "
            f"{first}; repair, replace or remove them"
        )
