"""What the ranks' places and silences mean: who has vanished, who holds up the others."""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.errors import EXIT_USER_ERROR, UserError
from engine.failure import Failure
from engine.heartbeat import Place
from engine.watchdog.retry import worth_retrying

SILENT_BEATS = 4
"""A rank that has said nothing for so many heartbeats cannot: its process is stopped, or its interpreter held."""
UNREACHABLE_SECONDS = 10.0
"""A rank whose kernel has acknowledged nothing for so long is cut off from the network, or its node is down."""
_NAMED = 4


def beat_seconds(world_size: int) -> float:
    """Returns how often a rank says where it is: once a second, but at most 1,024 times over all ranks."""
    return max(1.0, world_size / 1024)


class AwakeClock:
    """Seconds during which this process ran: a job that was suspended is not to find all its ranks late."""

    def __init__(self) -> None:
        self._seconds, self._last = 0.0, time.monotonic()

    def __call__(self) -> float:
        last, self._last = self._last, time.monotonic()
        self._seconds += min(self._last - last, 1.0)
        return self._seconds


@dataclass
class Member:
    """What is known of a rank."""

    rank: int
    host: str = ""
    heard: float = 0.0
    """When it last said something."""
    place: Place = field(default_factory=Place)
    idle: float = 0.0
    """Seconds without progress, as it last said."""
    slow: bool = True
    """Whether it does what may take long without a sign, see :attr:`engine.heartbeat.Heartbeat.slow`."""

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host}" if self.host else f"rank {self.rank}"

    def says(self, place: Place, idle: float, slow: bool, now: float) -> None:
        self.place, self.idle, self.slow, self.heard = place, idle, slow, now

    def silence(self, now: float) -> float:
        return now - self.heard

    def standing(self, now: float) -> float:
        return self.idle + self.silence(now)


class Limits(NamedTuple):
    """How many seconds nothing may move before that counts as a hang."""

    usual: float
    """distributed.timeout_seconds"""
    slow: float
    """distributed.start_timeout_seconds, as long as any rank is slow"""

    def of(self, members: Iterable[Member]) -> tuple[float, str]:
        """Returns the limit that holds for ``members``, and the reason to give where it is passed."""
        slow = self.slow > self.usual and any(member.slow for member in members)
        seconds, key = (self.slow, "start_timeout_seconds") if slow else (self.usual, "timeout_seconds")
        return seconds, f"no progress for {seconds:g} s, distributed.{key}"


def failed(rank: int, host: str, place: Place, error: BaseException, start: str) -> Failure:
    """Returns the failure of a rank that ``error`` ended, as it says so itself. A user's mistake needs no traceback."""
    user = isinstance(error, UserError)
    name, said = type(error).__name__, str(error).strip()
    text = said if user else f"{name}: {said}" if said else name
    reason = f"rank {rank} on {host} failed at step {place.step} ({place.phase}): {text}"
    trace = "" if user else "".join(traceback.format_exception(error))
    code = EXIT_USER_ERROR if user else 1
    return Failure(rank, host, place.step, reason, name, trace, code, start, said, retry=worth_retrying(error))


def vanished(member: Member, own: Place, why: str = "killed, out of memory, crashed, or its node went down") -> Failure:
    """Returns the failure of ``member``, who is gone, as seen by a rank at ``own``.

    Steps may be shorter than the time between heartbeats. The survivor cannot have got beyond the step that the other
    one was in, so its own step is the better one if it is further.
    """
    at = f"step {member.place.step} ({member.place.phase})" if member.place.step >= own.step else f"step {own.step}"
    step = max(member.place.step, own.step)
    return Failure(member.rank, member.host, step, f"{member.name} vanished at {at}: {why}", retry=True)


def cut_off(member: Member, standing: float, longest: float, own: Place) -> Failure | None:
    """Returns the failure of ``member``, whose node does not answer, if the others wait; None while training goes on.

    They do if they have stood three times longer than they ever stood between two moves, ``longest`` seconds.
    """
    waiting = standing > max(UNREACHABLE_SECONDS, 3 * longest)
    return vanished(member, own, "its node went down, or the network to it") if waiting else None


def late_ranks(members: Collection[Member], now: float, timeout: float, beat: float = 1.0) -> list[Member]:
    """Returns those whose fault it is that nothing has moved for ``timeout`` seconds; none while something moves.

    Ranks that say nothing come first, then those at the place that is furthest behind.
    """
    silent = [member for member in members if member.silence(now) > SILENT_BEATS * beat]
    if not all(member.standing(now) >= timeout for member in members):
        return [member for member in silent if member.silence(now) >= timeout]
    if not silent and any(member.silence(now) > 2 * beat for member in members):
        return []  # one of them is either about to say where it is, or to be silent for long enough
    return silent or furthest_behind(members)


def furthest_behind(members: Collection[Member]) -> list[Member]:
    """Returns the members at the least place."""
    least = min((member.place[:2] for member in members), default=None)
    return [member for member in members if member.place[:2] == least]


def hangs(
    late: Sequence[Member], members: Iterable[Member], now: float, why: str, stacks: dict[int, str], beat: float = 1.0
) -> Failure:
    """Returns the failure of ``late``, of ``members``; ``stacks`` are texts of those ranks that could give them."""
    first, others = late[0], [member for member in members if member not in late]
    known = [f"{member.name}:\n{stacks[member.rank]}" for member in [*late, *others] if member.rank in stacks]
    rank: int | None = first.rank
    who = f"{_listed([member.name for member in late])} "
    if late[1:] and not others:
        rank, who, verb = None, "", f"all ranks stand at {first.place}"
    elif first.silence(now) > SILENT_BEATS * beat:
        verb = f"{'are' if late[1:] else 'is'} silent since {first.place}, stopped or in code that holds Python's lock"
    else:
        verb = f"{'hang' if late[1:] else 'hangs'} at {first.place}"
    reason = f"{who}{verb}{_waiting(first.place, others)} ({why})"
    return Failure(rank, first.host, first.place.step, reason, traceback="\n".join(known[:_NAMED]), retry=True)


def _waiting(late: Place, others: Sequence[Member]) -> str:
    if not others:
        return ""
    ordered = sorted({(member.place[:2], member.place.phase) for member in others})
    texts = [phase if step == late.step else f"{phase} of step {step}" for (step, _), phase in ordered]
    who = "the others wait" if len(others) > 1 else f"{others[0].name} waits"
    return f"; {who} in {_listed(list(dict.fromkeys(texts)))}"


def _listed(texts: Sequence[str]) -> str:
    """Joins to ``a``, ``a and b``, ``a, b and c``, ``a, b, c, d and 3 more``."""
    shown = [*texts[:_NAMED], *([f"{len(texts) - _NAMED} more"] if len(texts) > _NAMED else [])]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
