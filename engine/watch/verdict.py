"""What the ranks' places and silences mean: who has vanished, who holds up the others."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.errors import EXIT_USER_ERROR, UserError
from engine.failure import Failure
from engine.pulse import Place

BEAT_SECONDS = 1.0
"""How often a rank says where it is."""

SILENT_SECONDS = 4 * BEAT_SECONDS
"""A rank that has said nothing for so long cannot: its process is stopped, or its interpreter held."""

_NAMED = 4


class AwakeClock:
    """Seconds during which this process ran.

    A job that its scheduler suspends, or a node that sleeps, is not to find all its ranks late when it goes on.
    """

    def __init__(self) -> None:
        self._seconds, self._last = 0.0, time.monotonic()

    def __call__(self) -> float:
        now = time.monotonic()
        self._seconds += min(now - self._last, BEAT_SECONDS)
        self._last = now
        return self._seconds


@dataclass
class Member:
    """What is known of a rank."""

    rank: int
    host: str
    heard: float
    """When it last said something."""
    place: Place = field(default_factory=Place)
    idle: float = 0.0
    """Seconds without progress, as it last said."""

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host}" if self.host else f"rank {self.rank}"

    def says(self, place: Place, idle: float, now: float) -> None:
        self.place, self.idle, self.heard = place, idle, now

    def silence(self, now: float) -> float:
        return now - self.heard


def failed(rank: int, host: str, step: int, phase: str, error: BaseException, start: str) -> Failure:
    """A rank that ``error`` ended, as it says so itself. A mistake of the user needs no traceback."""
    user = isinstance(error, UserError)
    name = type(error).__name__
    said = str(error).strip()
    text = said if user else f"{name}: {said}" if said else name
    reason = f"rank {rank} on {host} failed at step {step} ({phase}): {text}"
    trace = "" if user else "".join(traceback.format_exception(error))
    return Failure(rank, host, step, reason, name, trace, EXIT_USER_ERROR if user else 1, start, said)


def vanished(member: Member, own: Place) -> Failure:
    """``member``, whose connection ended without a good-bye, as seen by a rank at ``own``.

    A rank is heard every second, and steps may be shorter. The survivor cannot have got beyond the step that the other
    one was in, so its own step is the better one if it is further.
    """
    place = member.place
    at = f"at step {place.step} ({place.phase})" if place.step >= own.step else f"at step {own.step}"
    reason = f"{member.name} vanished {at}: killed, out of memory, crashed, or its node went down"
    return Failure(member.rank, member.host, max(place.step, own.step), reason, retry=True)


def late_ranks(members: Iterable[Member], now: float, timeout: float) -> list[Member]:
    """Those whose fault it is that nothing has moved for ``timeout`` seconds; none as long as something moves.

    Ranks that say nothing come first, then those at the place that is furthest behind.
    """
    all_of_them = list(members)
    standing = all(member.idle + member.silence(now) >= timeout for member in all_of_them)
    silent = [member for member in all_of_them if member.silence(now) > SILENT_SECONDS]
    if not standing:
        return [member for member in silent if member.silence(now) >= timeout]
    if not silent and any(member.silence(now) > 2 * BEAT_SECONDS for member in all_of_them):
        return []  # one of them is either about to say where it is, or to be silent for long enough
    return silent or furthest_behind(all_of_them)


def furthest_behind(members: Sequence[Member]) -> list[Member]:
    """The members at the least place."""
    least = min((member.place[:2] for member in members), default=None)
    return [member for member in members if member.place[:2] == least]


def hangs(late: Sequence[Member], members: Iterable[Member], now: float, why: str, stacks: dict[int, str]) -> Failure:
    """The failure of ``late``, of ``members``; ``stacks`` are texts of those ranks that could give them."""
    others = [member for member in members if member not in late]
    first = late[0]
    texts = [f"{member.name}:\n{stacks[member.rank]}" for member in [*late, *others] if member.rank in stacks]
    trace = "\n".join(texts[:_NAMED])
    if not others and len(late) > 1:
        return Failure(
            None, first.host, first.place.step, f"all ranks stand at {first.place} ({why})", "", trace, retry=True
        )
    if first.silence(now) > SILENT_SECONDS:
        verb = f"{'are' if late[1:] else 'is'} silent since {first.place}, stopped or in code that holds Python's lock"
    else:
        verb = f"{'hang' if late[1:] else 'hangs'} at {first.place}"
    reason = f"{_listed([member.name for member in late])} {verb}{_waiting(first.place, others)} ({why})"
    return Failure(first.rank, first.host, first.place.step, reason, "", trace, retry=True)


def _waiting(late: Place, others: Sequence[Member]) -> str:
    ordered = sorted(others, key=lambda member: member.place[:2])
    places = list(dict.fromkeys((member.place.step, member.place.phase) for member in ordered))
    if not places:
        return ""
    texts = [phase if step == late.step else f"{phase} of step {step}" for step, phase in places]
    who = "the others wait" if len(others) > 1 else f"{others[0].name} waits"
    return f"; {who} in {_listed(texts)}"


def _listed(texts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, c, d and 3 more``."""
    shown = [*texts[:_NAMED], *([f"{len(texts) - _NAMED} more"] if len(texts) > _NAMED else [])]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
