"""Rank 0's listener and judge: it hears every rank, its own included, and tells all of them the verdict."""

from __future__ import annotations

import logging
import secrets
import selectors
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import AuthenticationError, Pipe
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from queue import SimpleQueue

from engine.failure import Failure
from engine.heartbeat import Heartbeat
from engine.watchdog import verdict
from engine.watchdog.connection import GONE, connection_over, unacknowledged_seconds
from engine.watchdog.verdict import UNREACHABLE_SECONDS, AwakeClock, Limits, Member

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
ANSWER_SECONDS = 2.0
"""Longest wait for others to confirm what they were told."""
STACKS_SECONDS = 3.0
JOIN_SECONDS = 60.0


class Coordinator:
    """Works in a thread of its own from construction until :meth:`close`."""

    def __init__(self, world_size: int, host: str, limits: Limits, heartbeat: Heartbeat) -> None:
        """Listens from now on; ``host`` and ``heartbeat`` are rank 0's."""
        self._limits, self._heartbeat, self._beat = limits, heartbeat, verdict.beat_seconds(world_size)
        self._members = {rank: Member(rank) for rank in range(world_size)}
        self._connections: dict[int, Connection] = {}
        self._mute, self._told = set[int](), set[int]()
        """Ranks that do not take what they are sent, and those that have confirmed the verdict."""
        self._clock, self._now, self._judged, self._beaten = AwakeClock(), 0.0, 0.0, 0.0
        self._standing = self._longest = 0.0
        self._late, self._since, self._why, self._stacks = list[Member](), 0.0, "", dict[int, str]()
        """Whose hang is looked into, since when, why, and the stacks that have come."""
        self._verdict: Failure | None = None
        self._announced = False
        self._closing, self.complete = threading.Event(), threading.Event()
        self.token = secrets.token_bytes(16)
        """What a rank has to know to be let in."""
        self._selector = selectors.DefaultSelector()
        self._greeters = ThreadPoolExecutor(8, "greeter")
        self.own, inside = Pipe()
        """Rank 0's end of its own connection."""
        self._guests = SimpleQueue[tuple[int, str, Connection]]()
        self._guests.put((0, host, inside))
        self._listener = socket.create_server(("", 0), backlog=world_size + 64)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="coordinator", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Says good-bye to all, waits until they have heard it, or a little, and ends the thread."""
        self._closing.set()
        self._thread.join(2 * ANSWER_SECONDS)

    def close_sockets(self) -> None:
        """Closes everything, in a forked child too, where it leaves the parent's connections as they are."""
        self._selector.close()
        self._listener.close()
        for connection in (*self._connections.values(), self.own):
            connection.close()

    def _run(self) -> None:
        try:
            while not self._closing.wait(POLL_SECONDS if self.complete.is_set() else 0.02):
                self._poll()
                if self._verdict is None and self._now - self._judged >= min(1.0, self._limits.usual / 4):
                    self._judged = self._now
                    self._judge()
                if self._verdict is not None and not self._announced:
                    self._announce(self._verdict)
                if self._now - self._beaten >= self._beat:
                    self._beaten, main = self._now, self._members.get(0, Member(0))
                    self._tell_all("beat", main.place, main.idle, main.slow)
        except Exception:
            log.exception("the watchdog over all ranks has failed; going on without")
        self._tell_all("bye")
        self._wait_for(set(self._connections))
        self._greeters.shutdown(wait=False)
        self.close_sockets()

    def _poll(self) -> None:
        """Handles what has arrived, one message a rank."""
        self._now = self._clock()
        with suppress(OSError):  # none has come, or the listener is closed, as all have
            while True:
                self._greeters.submit(self._greet, self._listener.accept()[0])
        while not self._guests.empty():
            self._admit(*self._guests.get())
        for key, _ in self._selector.select(0):
            self._hear(key.data)

    def _wait_for(self, ranks: set[int]) -> None:
        """Waits until these ranks have confirmed the verdict or have left, or a little."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while (ranks - self._told) & self._connections.keys() and time.monotonic() < deadline:
            time.sleep(0.01)
            self._poll()

    # -- who there is, and what they say ---------------------------------------------------------------------------

    def _greet(self, end: socket.socket) -> None:
        """Lets in who knows the token; in a thread of the pool, where a stranger holds up no one for long."""
        guest = connection_over(end)
        try:
            deliver_challenge(guest, self.token)
            answer_challenge(guest, self.token)
            self._guests.put((*guest.recv(), guest))
        except (*GONE, AuthenticationError):
            guest.close()

    def _admit(self, rank: int, host: str, connection: Connection) -> None:
        self._connections[rank], member = connection, self._members[rank]
        member.host, member.heard = host, self._now
        self._selector.register(connection, selectors.EVENT_READ, rank)
        if len(self._connections) == len(self._members):
            self.complete.set()
            self._listener.close()
        if self._announced:
            self._tell(rank, "verdict", self._verdict)

    def _drop(self, rank: int) -> Member:
        connection = self._connections.pop(rank)
        self._selector.unregister(connection)
        connection.close()
        return self._members.pop(rank)

    def _hear(self, rank: int) -> None:
        try:
            message = self._connections[rank].recv()
        except GONE:
            self._conclude(verdict.vanished(self._drop(rank), self._heartbeat.place))
            return
        member = self._members[rank]
        member.heard = self._now
        match message:
            case "beat", place, idle, slow:
                member.says(place, idle, slow, self._now)
            case "stop", name:
                self._tell_all("stop", name)
            case "failed", failure:
                self._conclude(failure)
            case "trouble", place:  # its collective has waited for the whole timeout
                late = verdict.furthest_behind(self._members.values())
                member.place = place
                if member not in late:
                    self._examine(late, f"rank {rank} waited for distributed.timeout_seconds")
            case "stacks", text:
                self._stacks[rank] = text
            case ("heard",):
                self._told.add(rank)
            case ("bye",):
                self._tell(rank, "bye")
                self._drop(rank)

    def _tell_all(self, *message: object) -> None:
        for rank in self._connections:
            self._tell(rank, *message)

    def _tell(self, rank: int, *message: object) -> None:
        if rank not in self._mute:
            try:
                self._connections[rank].send(message)
            except OSError:  # that it is gone is for _hear to find, after what came before
                self._mute.add(rank)

    # -- what it means ---------------------------------------------------------------------------------------------

    def _conclude(self, failure: Failure | None) -> None:
        self._verdict = self._verdict or failure

    def _announce(self, failure: Failure) -> None:
        """Tells all ranks, rank 0 when the others have heard it or a little later: then its process ends."""
        self._announced, others = True, self._connections.keys() - {0}
        for rank in others:
            self._tell(rank, "verdict", failure)
        self._wait_for(others)
        if 0 in self._connections:
            self._tell(0, "verdict", failure)

    def _judge(self) -> None:
        """Looks whether anybody hangs, is cut off, or never came."""
        now, members = self._now, list(self._members.values())
        if self._late:
            expected = self._connections.keys() - {each.rank for each in self._late if each.silence(now) > 2}
            if self._stacks.keys() >= expected or time.monotonic() > self._since + STACKS_SECONDS:
                self._conclude(verdict.hangs(self._late, members, now, self._why, self._stacks, self._beat))
            return
        silent = [member for member in members if member.silence(now) > UNREACHABLE_SECONDS]
        standing = min((member.standing(now) for member in members if member not in silent), default=0.0)
        if standing < self._standing and not any(member.slow for member in members):
            self._longest = max(self._longest, self._standing)
        self._standing = standing
        for member in silent:
            connection = self._connections.get(member.rank)
            if connection is None and now > JOIN_SECONDS:
                self._conclude(verdict.vanished(member, self._heartbeat.place))
            lost = connection and verdict.cut_off(member, standing, self._longest, self._heartbeat.place)
            if connection is not None and lost and unacknowledged_seconds(connection) > UNREACHABLE_SECONDS:
                self._conclude(lost)
        # One that is silent may long be past what it last said it did; all do the same, so the others know.
        heard = [member for member in members if member.silence(now) <= verdict.SILENT_BEATS * self._beat]
        limit, why = self._limits.of(heard or members)
        late = verdict.late_ranks(members, now, limit, self._beat)
        if late and self._verdict is None:
            self._examine(late, why)

    def _examine(self, late: list[Member], why: str) -> None:
        """Asks all ranks for their stacks."""
        if not self._late:
            self._late, self._why, self._since = late, why, time.monotonic()
            self._tell_all("stacks?")
