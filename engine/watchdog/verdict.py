"""What is known of a rank, over which connection, and what that means: who has vanished, who holds up the others."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import NamedTuple

from engine.distributed.heartbeat import Place
from engine.run_folder.failure import Failure

SILENT_BEATS = 4  # a rank that says nothing for longer cannot: its process is stopped, or its interpreter held
UNREACHABLE_SECONDS = 10.0  # a kernel that acknowledges nothing for longer is cut off from the network, or down
CUT_OFF = "its node went down, or the network to it"
GONE = (EOFError, OSError)  # raised where the other end's process is gone, or has stopped within a message
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


def connection_over(end: socket.socket) -> Connection:
    """Returns one of multiprocessing's connections that takes over ``end``, on which no wait is longer than seconds."""
    end.settimeout(None)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 500_000))
    return Connection(end.detach())


def unacknowledged_seconds(connection: Connection) -> float:
    """Returns for how long the other end's kernel has given no sign, as it does for every heartbeat; 0.0: unknown."""
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as end:
            info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except (OSError, AttributeError):  # closed, no TCP, or not Linux
        return 0.0
    return float(struct.unpack_from("I", info, 56)[0]) / 1000  # Linux's tcpi_last_ack_recv, in milliseconds


@dataclass(eq=False)  # thousands are looked up among thousands
class Member:
    """State of a rank as far as it is known, and the connection to it while there is one."""

    rank: int
    host: str = ""
    heard: float = 0.0  # when it last said something
    place: Place = field(default_factory=Place)
    idle: float = 0.0  # seconds without progress, as it last said
    slow: bool = True  # see Heartbeat.slow
    connection: Connection | None = None
    mute: bool = False  # it has not taken what it was sent
    stacks: str = ""

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host}" if self.host else f"rank {self.rank}"

    def silence(self, now: float) -> float:
        return now - self.heard

    def cut_off(self, now: float) -> bool:
        """Returns whether neither the rank nor its kernel gives a sign: its node is down, or the network to it."""
        silent = self.connection if self.silence(now) > UNREACHABLE_SECONDS else None
        return silent is not None and unacknowledged_seconds(silent) > UNREACHABLE_SECONDS

    def tell(self, *message: object) -> None:
        """Sends it a message, unless it is mute. That it is gone is for who reads to find, after what came before."""
        try:
            if self.connection is not None and not self.mute:
                self.connection.send(message)
        except OSError:
            self.mute = True


class Pace:
    """For how long nothing has moved, and for how long it ever had between two moves of which none was slow."""

    _standing, _slow, _longest = 0.0, True, 0.0

    def stands(self, seconds: float, slow: bool) -> None:
        if seconds < self._standing and not self._slow:
            self._longest = max(self._longest, self._standing)
        self._standing, self._slow = seconds, slow

    def waits(self, margin: float = 0.0) -> bool:
        """Returns whether training no longer goes on, so that a node that is cut off is lost."""
        return self._standing - margin > max(UNREACHABLE_SECONDS, 3 * self._longest)


class Limits(NamedTuple):
    """Seconds without progress that count as a hang."""

    usual: float  # distributed.timeout_seconds
    slow: float  # distributed.start_timeout_seconds, as long as any rank is slow

    def of(self, members: Iterable[Member]) -> tuple[float, str]:
        """Returns the limit that holds for ``members``, and the reason to give where it is passed."""
        slow = self.slow > self.usual and any(member.slow for member in members)
        seconds, key = (self.slow, "start_timeout_seconds") if slow else (self.usual, "timeout_seconds")
        return seconds, f"no progress for {seconds:g} s, distributed.{key}"


def vanished(member: Member, own: Place, why: str = "killed, out of memory, crashed, or its node went down") -> Failure:
    """Returns the failure of ``member``, who is gone, at most a step behind a survivor at ``own``: its beat is old."""
    said, place = f"{member.name} vanished, last heard of at step {member.place.step}", member.place
    said += f", while the others were at step {own.step}" if own.step > place.step else f" ({place.phase})"
    return Failure(member.rank, member.host, max(place.step, own.step), f"{said}: {why}", retry=True)


def late_ranks(members: Collection[Member], now: float, timeout: float, beat: float = 1.0) -> list[Member]:
    """Returns those who hold up the others for ``timeout`` seconds: who is silent, else who is furthest behind."""
    silent = [member for member in members if member.silence(now) > SILENT_BEATS * beat]
    if any(member.idle + member.silence(now) < timeout for member in members):
        return [member for member in silent if member.silence(now) >= timeout]
    if not silent and any(member.silence(now) > 2 * beat for member in members):
        return []  # one of them is either about to say where it is, or to be silent for long enough
    return silent or furthest_behind(members)


def furthest_behind(members: Collection[Member]) -> list[Member]:
    """Returns the members at the least place."""
    least = min((member.place[:2] for member in members), default=None)
    return [member for member in members if member.place[:2] == least]


def hangs(late: Sequence[Member], members: Iterable[Member], now: float, why: str, beat: float = 1.0) -> Failure:
    """Returns the failure of ``late``, of ``members``."""
    first, blamed, many = late[0], set(late), late[1:]
    others = sorted((each for each in members if each not in blamed), key=lambda each: each.place[:2])
    rank = first.rank if others or not many else None
    said = "all ranks" if rank is None else _listed(each.name for each in late)
    if first.silence(now) > SILENT_BEATS * beat:
        said += f" {'are' if many else 'is'} silent since {first.place}, stopped or in code that holds Python's lock"
    else:
        said += f" {'hang' if many else 'hangs'} at {first.place}"
    if others:
        step, places = first.place.step, [each.place for each in others]
        texts = (each.phase if each.step == step else f"{each.phase} of step {each.step}" for each in places)
        said += f"; {'the others wait' if others[1:] else f'{others[0].name} waits'} in {_listed(texts)}"
    known = [f"{each.name}:\n{each.stacks}" for each in [*late, *others] if each.stacks][:_NAMED]
    return Failure(rank, first.host, first.place.step, f"{said} ({why})", traceback="\n".join(known), retry=True)


def _listed(texts: Iterable[str]) -> str:
    """Joins those that differ to ``a``, ``a and b``, ``a, b and c``, ``a, b, c, d and 3 more``."""
    different = list(dict.fromkeys(texts))
    shown = different[:_NAMED] + ([f"{len(different) - _NAMED} more"] if different[_NAMED:] else [])
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
