"""The side of the watch of every rank but 0: it tells rank 0 and hears from it, and notices if it is gone."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Iterable

from engine.errors import UserError
from engine.failure import Failure
from engine.pulse import Place, Pulse
from engine.watch.hub import ANSWER_SECONDS
from engine.watch.stacks import log_stacks
from engine.watch.verdict import BEAT_SECONDS, SILENT_SECONDS, Member, hangs, late_ranks, vanished
from engine.watch.wire import Link, Message

_CONNECT_SECONDS = 5.0
_TRIES = 3


class Spoke:
    """Used by the watch thread alone, but for construction."""

    def __init__(
        self,
        own: Member,
        hub: Member,
        address: str,
        token: str,
        timeout: float,
        pulse: Pulse,
        on_stop: Callable[[str], None],
    ) -> None:
        """Connects to rank 0, the ``hub``.

        Raises:
            UserError: it was reached under none of its addresses.
        """
        self._timeout, self._on_stop = timeout, on_stop
        self._selector = selectors.DefaultSelector()
        self.own, self._hub, self._pulse = own, hub, pulse
        self._now = 0.0
        self.verdict: Failure | None = None
        """What all were told, or what was found out here about rank 0."""
        self._link: Link | None = _connect(address, {"token": token, "rank": own.rank, "host": own.host})
        self._selector.register(self._link.socket, selectors.EVENT_READ, self._hear)

    def register(self, end: socket.socket, handle: Callable[[], None]) -> None:
        """Calls ``handle`` when something can be read from ``end``."""
        self._selector.register(end, selectors.EVENT_READ, handle)

    def sockets(self) -> Iterable[socket.socket]:
        """All of them, for a forked child to close."""
        return [self._link.socket] if self._link is not None else []

    def poll(self, seconds: float, now: float) -> None:
        """Handles what arrives in that time."""
        self._now = now
        for key, _ in self._selector.select(seconds):
            key.data()
        if self._link is not None:
            self._link.flush()

    def beat(self) -> None:
        """Says where this rank is."""
        if self._link is not None and self._link.flush():
            self._link.send("at", place=self.own.place, idle=self.own.idle)

    def tell_stop(self, name: str) -> None:
        """All ranks are to stop, as this one was sent a signal."""
        if self._link is not None:
            self._link.send("stop", signal=name)

    def trouble(self, rank: int, timed_out: bool) -> None:
        """A collective has failed here, by somebody else's fault or the network's."""
        if self._link is not None:
            self._link.send("trouble", place=self.own.place, idle=self.own.idle, timed_out=timed_out)

    def conclude(self, failure: Failure) -> None:
        """Has rank 0 tell all ranks, and waits until it has heard it, or a little."""
        if self._link is not None:
            self._link.send("failed", failure=failure.to_json())
            self._wait(lambda: self.verdict is not None)
        self.verdict = self.verdict or failure

    def judge(self) -> None:
        """Looks whether rank 0 has fallen silent; without it, whether this rank hangs."""
        if self.verdict is not None:
            return
        if self._link is None:
            members = late = late_ranks([self.own], self._now, self._timeout)
        else:
            members = [self.own, self._hub]
            patience = max(self._timeout, SILENT_SECONDS) + 2 * BEAT_SECONDS  # rank 0 itself has the first word
            late = [self._hub] if self._hub.silence(self._now) > patience else []
        if late:
            why = f"no progress for {self._timeout:g} s, distributed.timeout_seconds"
            self.verdict = hangs(late, members, self._now, why, {self.own.rank: log_stacks()})

    def leave(self) -> None:
        """Says good-bye, and waits until rank 0 has heard it, or a little."""
        if self._link is not None:
            self._link.send("bye")
            self._wait(lambda: self._link is None)

    def close(self) -> None:
        """Closes everything, in a forked child too, where it leaves the parent's connection as it is."""
        for end in self.sockets():
            end.close()
        self._selector.close()

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while not done() and self._link is not None and time.monotonic() < deadline:
            self.poll(0.05, self._now)

    def _drop(self) -> None:
        if self._link is not None:
            self._selector.unregister(self._link.socket)
            self._link.close()
            self._link = None

    def _hear(self) -> None:
        link = self._link
        for message in link.receive() if link is not None else ():
            self._heed(message)
        if self._link is not None and self._link.ended:
            self._drop()
            self.verdict = self.verdict or vanished(self._hub, self._pulse.place)

    def _heed(self, message: Message) -> None:
        if self._link is None:
            return
        self._hub.heard = self._now
        match message.get("kind"):
            case "at":
                self._hub.says(Place(*message["place"]), message["idle"], self._now)
            case "stop":
                self._on_stop(message["signal"])
            case "stacks?":
                self._link.send("stacks", text=log_stacks())
            case "verdict":
                self._link.send("heard")
                self.verdict = self.verdict or Failure.from_json(message["failure"])
            case "bye":
                self._link.send("bye")
                self._drop()


def _connect(address: str, hello: Message) -> Link:
    """The connection to rank 0, which has answered ``hello``."""
    *hosts, port = address.split()
    for _ in range(_TRIES):
        for host in hosts:
            with contextlib.suppress(OSError, ValueError):
                end = socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)
                link = Link(end)
                link.send("hello", **hello)
                if _welcomed(link):
                    return link
                link.close()
        time.sleep(1)
    raise UserError(
        f"rank {hello['rank']} on {hello['host']} reached rank 0 under none of {', '.join(hosts)} (port {port}); "
        "all ports between the nodes of a job have to be open"
    )


def _welcomed(link: Link) -> bool:
    """Whether rank 0 is at the other end, and no other program with the same port on another host."""
    end = link.socket
    end.settimeout(_CONNECT_SECONDS)
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < 100:  # byte by byte, so that nothing of what follows is taken
        data = end.recv(1)
        if not data:
            return False
        line += data
    end.setblocking(False)
    return line == b'{"kind": "welcome"}\n'
