"""Rank 0's listener and judge: it hears every rank, its own included, and tells all of them the verdict."""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import AuthenticationError, Pipe
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from queue import SimpleQueue

from engine.distributed.heartbeat import Heartbeat
from engine.run_folder.failure import Failure
from engine.watchdog import verdict

log = logging.getLogger(__name__)
ANSWER_SECONDS = 2.0  # longest wait for others to take leave once they were told to
POLL_SECONDS, STACKS_SECONDS, JOIN_SECONDS = 0.2, 3.0, 60.0


class Coordinator:
    """Listens and judges in a thread of its own until :meth:`close`."""

    def __init__(self, world_size: int, host: str, limits: verdict.Limits, heartbeat: Heartbeat) -> None:
        self._limits, self._heartbeat, self._beat = limits, heartbeat, verdict.beat_seconds(world_size)
        self._members, self._missing = {rank: verdict.Member(rank) for rank in range(world_size)}, world_size
        self._clock, self._pace, self._now = verdict.AwakeClock(), verdict.Pace(), 0.0
        self._judged = self._beaten = 0.0
        self._late, self._why = list[verdict.Member](), ""  # who seems to hang, and why it seems so
        self._verdict: Failure | None = None
        self._closing, self.complete = threading.Event(), threading.Event()
        self.token = secrets.token_bytes(16)  # what a rank has to know to be let in
        self._selector, self._greeters = selectors.DefaultSelector(), ThreadPoolExecutor(8, "greeter")
        self.own, inside = Pipe()  # rank 0 has a connection to itself
        self._guests = SimpleQueue[tuple[int, str, Connection]]()
        self._guests.put((0, host, inside))
        self._listener = socket.create_server(("", 0), backlog=world_size + 64)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        os.register_at_fork(after_in_child=self._close_sockets)
        self._thread = threading.Thread(target=self._run, name="coordinator", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Says good-bye to all, waits until they have left, or a little, and ends the thread."""
        self._closing.set()
        self._thread.join(2 * ANSWER_SECONDS)

    def _close_sockets(self) -> None:
        """Closes them; also in a forked child, where it leaves the parent's connections as they are."""
        self._selector.close()
        for each in (self._listener, self.own, *(member.connection for member in self._members.values())):
            if each is not None:
                each.close()

    def _run(self) -> None:
        try:
            while self._verdict is None and not self._closing.wait(POLL_SECONDS if self.complete.is_set() else 0.02):
                self._poll()
                if self._now >= self._judged + 1.0:
                    self._judge()
            if self._verdict is not None:  # rank 0 is told last: then its process ends
                self._dismiss(self._members.keys() - {0}, "verdict", self._verdict)
                self._tell(self._members.keys() & {0}, "verdict", self._verdict)
            while not self._closing.wait(POLL_SECONDS):
                self._poll()
        except Exception:
            log.exception("the watchdog over all ranks has failed; going on without")
        self._dismiss(set(self._members), "bye")
        self._greeters.shutdown(wait=False)
        self._close_sockets()

    def _poll(self) -> None:
        """Handles what has arrived, one message a rank, and gives all ranks a sign of life."""
        self._now = self._clock()
        with suppress(OSError):  # none has come, or the listener is closed, as all have
            while True:
                self._greeters.submit(self._greet, self._listener.accept()[0])
        while not self._guests.empty():
            self._admit(*self._guests.get())
        for key, _ in self._selector.select(0):
            self._hear(*key.data)
        if self._now - self._beaten >= self._beat:
            self._beaten = self._now
            self._tell(self._members, "beat", self._heartbeat.place)

    def _wait(self, seconds: float, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            time.sleep(0.01)
            self._poll()

    def _tell(self, ranks: Iterable[int], *message: object) -> None:
        for rank in ranks:
            self._members[rank].tell(*message)

    def _dismiss(self, ranks: set[int], *message: object) -> None:
        """Tells these ranks what ends them, and waits until they have left, or a little."""
        self._tell(ranks, *message)
        self._wait(ANSWER_SECONDS, lambda: ranks.isdisjoint(self._members))

    def _greet(self, end: socket.socket) -> None:
        """Lets in who knows the token; in a thread of the pool, where an unknown client holds up no one for long."""
        guest = verdict.connection_over(end)
        try:
            deliver_challenge(guest, self.token)
            answer_challenge(guest, self.token)
            self._guests.put((*guest.recv(), guest))
        except (*verdict.GONE, AuthenticationError):
            guest.close()

    def _admit(self, rank: int, host: str, connection: Connection) -> None:
        member, self._missing = self._members[rank], self._missing - 1
        member.host, member.heard, member.connection = host, self._now, connection
        self._selector.register(connection, selectors.EVENT_READ, (member, connection))
        if not self._missing:
            self._listener.close()
            self.complete.set()
        if self._verdict is not None:
            member.tell("verdict", self._verdict)

    def _hear(self, member: verdict.Member, connection: Connection) -> None:
        try:
            message = connection.recv()
        except verdict.GONE:
            message = ("gone",)
        member.heard = self._now
        match message:
            case "beat", place, idle, slow:
                member.place, member.idle, member.slow = place, idle, slow
            case "stop", name:
                self._tell(self._members, "stop", name)
            case "failed", failure:
                self._verdict = self._verdict or failure
            case "trouble", place:  # its collective has waited for the whole timeout
                if member not in (late := verdict.furthest_behind(self._members.values())) and not self._late:
                    self._late, self._why = late, f"rank {member.rank} waited for distributed.timeout_seconds"
                member.place = place
            case "stacks", text:
                member.stacks = text
            case ("bye" | "gone" as word,):
                if word == "gone":
                    self._verdict = self._verdict or verdict.vanished(member, self._heartbeat.place)
                member.tell("bye")
                self._selector.unregister(connection)
                connection.close()
                del self._members[member.rank]

    def _judge(self) -> None:
        """Looks whether anybody is cut off, never came, or hangs; if so, asks all for their stacks."""
        self._judged, now, members, place = self._now, self._now, self._members.values(), self._heartbeat.place
        reached = (each.idle + now - each.heard for each in members if now - each.heard <= verdict.UNREACHABLE_SECONDS)
        self._pace.stands(min(reached, default=0.0), any(each.slow for each in members))
        for member in members:
            if member.connection is None and now > JOIN_SECONDS:
                self._verdict = self._verdict or verdict.vanished(member, place)
            elif self._pace.waits() and member.cut_off(now):
                self._verdict = self._verdict or verdict.vanished(member, place, verdict.CUT_OFF)
        # One that is silent may long be past what it last said it did; all do the same, so the others know.
        heard = [member for member in members if member.silence(now) <= verdict.SILENT_BEATS * self._beat]
        if not self._late:
            limit, self._why = self._limits.of(heard or members)
            self._late = verdict.late_ranks(members, now, limit, self._beat)
        if self._late and self._verdict is None:
            self._tell(self._members, "stacks?")
            self._wait(STACKS_SECONDS, lambda: self._verdict or all(member.stacks for member in heard))
            self._verdict = self._verdict or verdict.hangs(self._late, members, self._now, self._why, self._beat)
