"""Rank 0's side of the watch: it hears all others, judges, and tells them."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.failure import Failure
from engine.pulse import Place, Pulse
from engine.watch.door import Door
from engine.watch.stacks import log_stacks
from engine.watch.verdict import Member, furthest_behind, hangs, late_ranks, vanished
from engine.watch.wire import LONGEST_LINE, Link, Message

ANSWER_SECONDS = 2.0
"""Longest wait for others to confirm what they were told."""
STACKS_SECONDS = 3.0
CONNECT_SECONDS = 30.0


@dataclass
class _Inquest:
    """A hang whose stacks are being collected."""

    late: list[Member]
    why: str
    deadline: float
    stacks: dict[int, str]


class Hub:
    """Used by the watch thread alone, but for construction and :meth:`address`."""

    def __init__(
        self, own: Member, world_size: int, token: str, timeout: float, pulse: Pulse, on_stop: Callable[[str], None]
    ) -> None:
        self.own, self._pulse = own, pulse
        self._timeout, self._on_stop = timeout, on_stop
        self._selector = selectors.DefaultSelector()
        self._members = {rank: Member(rank, "", 0.0) for rank in range(world_size)} | {0: self.own}
        self._links: dict[int, Link] = {}
        self._told: set[int] = set()
        self._now = 0.0
        self._inquest: _Inquest | None = None
        self.verdict: Failure | None = None
        """What all were told."""
        self.complete = threading.Event()
        """Whether all ranks have come."""
        if world_size == 1:
            self.complete.set()
        self._door = Door(self._selector, world_size, token, self._enter) if world_size > 1 else None

    def address(self) -> str:
        """Where the others find this one: ``host host … port``."""
        return self._door.address() if self._door is not None else ""

    def register(self, end: socket.socket, handle: Callable[[], None]) -> None:
        """Calls ``handle`` when something can be read from ``end``."""
        self._selector.register(end, selectors.EVENT_READ, handle)

    def sockets(self) -> Iterable[socket.socket]:
        """All of them, for a forked child to close."""
        door = self._door.sockets() if self._door is not None else ()
        return [*door, *(link.socket for link in self._links.values())]

    def poll(self, seconds: float, now: float) -> None:
        """Handles what arrives in that time."""
        self._now = now
        for key, _ in self._selector.select(seconds):
            key.data()
        for link in self._links.values():
            link.flush()
        if self._door is not None:
            self._door.tidy(now)

    def beat(self) -> None:
        """Says where this rank is."""
        for link in self._links.values():
            if link.flush():  # nothing piles up for a rank that does not read
                link.send("at", place=self.own.place, idle=self.own.idle)

    def tell_stop(self, name: str) -> None:
        """All ranks are to stop, as one was sent a signal."""
        for link in self._links.values():
            link.send("stop", signal=name)

    def trouble(self, rank: int, timed_out: bool) -> None:
        """A rank's collective has failed, by somebody else's fault or the network's."""
        late = furthest_behind(list(self._members.values()))
        if timed_out and self._members[rank] not in late:
            self._examine(late, f"rank {rank} waited for distributed.timeout_seconds")

    def conclude(self, failure: Failure) -> None:
        """Tells all ranks, and waits until they have heard it, or a little. The first verdict stands."""
        if self.verdict is not None:
            return
        self.verdict, self._inquest = failure, None
        for link in self._links.values():
            link.send("verdict", failure=failure.to_json())
        self._wait(lambda: self._told >= set(self._links))

    def leave(self) -> None:
        """Says good-bye, and waits until all have heard it, or a little."""
        for link in self._links.values():
            link.send("bye")
        self._wait(lambda: not self._links)

    def close(self) -> None:
        """Closes everything, in a forked child too, where it leaves the parent's connections as they are."""
        for end in self.sockets():
            end.close()
        self._selector.close()

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while not done() and time.monotonic() < deadline:
            self.poll(0.05, self._now)

    # -- who there is ----------------------------------------------------------------------------------------------

    def _enter(self, hello: Message, link: Link) -> bool:
        rank = hello.get("rank")
        if rank not in self._members or rank == 0 or rank in self._links:
            return False
        self._links[rank], link.longest_line = link, LONGEST_LINE
        member = self._members[rank]
        member.host, member.heard = str(hello.get("host", "")), self._now
        self._selector.register(link.socket, selectors.EVENT_READ, lambda: self._hear(rank))
        link.send("welcome")
        if len(self._links) == len(self._members) - 1:
            self.complete.set()
        if self.verdict is not None:
            link.send("verdict", failure=self.verdict.to_json())
        return True

    def _drop(self, rank: int) -> Member:
        link = self._links.pop(rank)
        self._selector.unregister(link.socket)
        link.close()
        return self._members.pop(rank)

    # -- what they say ---------------------------------------------------------------------------------------------

    def _hear(self, rank: int) -> None:
        link = self._links.get(rank)
        for message in link.receive() if link is not None else ():
            if rank in self._links:
                self._heed(rank, message)
        if link is not None and link.ended and rank in self._links:
            self.conclude(vanished(self._drop(rank), self._pulse.place))

    def _heed(self, rank: int, message: Message) -> None:
        member, link = self._members[rank], self._links[rank]
        member.heard = self._now
        match message.get("kind"):
            case "at":
                member.says(Place(*message["place"]), message["idle"], self._now)
            case "stop":
                self._on_stop(message["signal"])
            case "failed":
                self.conclude(Failure.from_json(message["failure"]))
            case "trouble":
                member.says(Place(*message["place"]), message["idle"], self._now)
                self.trouble(rank, message["timed_out"])
            case "stacks" if self._inquest is not None:
                self._inquest.stacks[rank] = message["text"]
            case "heard":
                self._told.add(rank)
            case "bye":
                link.send("bye")
                self._drop(rank)

    # -- what it means ---------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Looks whether anybody hangs, or never came."""
        if self.verdict is not None:
            return
        if self._inquest is not None:
            members, inquest = list(self._members.values()), self._inquest
            expected = {0, *self._links} - {member.rank for member in inquest.late if member.silence(self._now) > 2}
            if inquest.stacks.keys() >= expected or time.monotonic() > inquest.deadline:
                self.conclude(hangs(inquest.late, members, self._now, inquest.why, inquest.stacks))
            return
        for rank in sorted(self._members.keys() - self._links.keys() - {0}):
            if self._now > CONNECT_SECONDS:
                self.conclude(vanished(self._members[rank], self._pulse.place))
        late = late_ranks(self._members.values(), self._now, self._timeout)
        if late:
            self._examine(late, f"no progress for {self._timeout:g} s, distributed.timeout_seconds")

    def _examine(self, late: list[Member], why: str) -> None:
        if self._inquest is None and self.verdict is None:
            for link in self._links.values():
                link.send("stacks?")
            self._inquest = _Inquest(late, why, time.monotonic() + STACKS_SECONDS, {0: log_stacks()})
