"""Every rank knows of the others, so that a failure, a death, a hang or the launcher's end is named and ends them all.

On each, a thread that needs no help of the main one holds a connection to rank 0's :mod:`engine.watchdog.coordinator`.
Its end, which the kernel tells at once, is the death of a process, however it died; torch's TCPStore would not tell.
A node without power or network acknowledges nothing: if moreover nobody gets on, it is lost, within some 12 s; while
steps go on, only the management network is gone, and nothing follows. A rank that is stopped or holds Python's lock is
silent while its kernel answers: a hang, once the time limit has passed, as are heartbeats that stand still.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import IO

from engine.distributed.flight_recorder import write_flight_record
from engine.distributed.ranks import Ranks
from engine.distributed.rendezvous import own_addresses
from engine.errors import UserError
from engine.requeue.retry import failure_of, is_communication_error, timed_out
from engine.run_folder.failure import Failure
from engine.watchdog import verdict
from engine.watchdog.coordinator import ANSWER_SECONDS, JOIN_SECONDS, POLL_SECONDS, Coordinator
from engine.watchdog.process_end import end_process, log_stacks

log = logging.getLogger(__name__)
VERDICT_SECONDS, END_SECONDS = 5.0, 10.0  # longest waits to hear whose fault an error was, and for the end after it


class Watchdog(AbstractContextManager["Watchdog"]):
    """Watches over all ranks until :meth:`close`. A context manager; an error that leaves it is settled first."""

    def __init__(
        self,
        ranks: Ranks,
        limits: verdict.Limits,
        on_end: Callable[[Failure], None],
        log_file: Callable[[], Path | None] = lambda: None,
        launcher: int | None = None,
    ) -> None:
        """Starts the watch, on all ranks at once. Raises a :class:`UserError` if rank 0 cannot be reached from here.

        Args:
            on_end: records a failure that is not this rank's own doing, in a thread and some seconds, before the end.
            log_file: names this rank's log, once there is one: there go the stacks of a rank that holds Python's lock.
            launcher: number of the process whose end ends this one; torchrun's and srun's is the parent.
        """
        self._heartbeat, self._member = ranks.heartbeat, verdict.Member(ranks.rank, socket.gethostname())
        self._stop, self._limits, self._on_end, self._log_file = ranks.stop, limits, on_end, log_file
        self._launcher = os.getppid() if launcher is None and ranks.layout.launcher != "single" else launcher
        self._beat, self._pace = verdict.beat_seconds(ranks.world_size), verdict.Pace()
        self._verdict: Failure | None = None  # the first known here, this rank's own failure or another's
        self._own = self._leaving = self._stop_told = False
        self._deciding, self._sending = threading.Lock(), threading.Lock()
        self._log: IO[str] | None = None
        own = Coordinator(ranks.world_size, self._member.host, limits, ranks.heartbeat) if ranks.is_main else None
        listener = (own_addresses(), own.port, own.token) if own is not None else ()
        self.start, host, *where = ranks.from_main(lambda: (secrets.token_hex(8), self._member.host, *listener))
        self._connection = own.own if own is not None else join(self._member, *where)
        self._main, self._coordinator = verdict.Member(0, host, connection=self._connection), own
        os.register_at_fork(after_in_child=self._connection.close)  # a data worker would keep this rank's death hidden
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()
        if own is not None:
            own.complete.wait(JOIN_SECONDS)  # a rank that has not come by then is missed by the thread

    def settle(self, error: BaseException) -> Failure:
        """Finds out whose fault ``error`` is. Returns if this rank's, when all are told; else the process ends."""
        if is_communication_error(error):
            if timed_out(error):
                self._tell("trouble", self._heartbeat.place)
            self._thread.join(VERDICT_SECONDS)
        failure = failure_of(self._member.rank, self._member.host, self._heartbeat.place, error)
        if self._decide(failure, own=True):
            self._tell("failed", failure)
        self._thread.join(2 * ANSWER_SECONDS if self._own else END_SECONDS)  # until all have heard, or this has ended
        return self._verdict or failure

    def close(self) -> None:
        """Ends the watchdog; the others, who may end seconds earlier or later, do not take it for a death."""
        self._leaving = True
        self._tell_stop()
        self._tell("bye")
        self._thread.join(ANSWER_SECONDS)
        if self._verdict is not None and not self._own:
            self._thread.join(END_SECONDS)
        if self._coordinator is not None:
            self._coordinator.close()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self._verdict is None:
            self.settle(error)
        self.close()

    def _run(self) -> None:
        own, clock, beaten, ticks, moved, found = self._member, verdict.AwakeClock(), -self._beat, -1, 0.0, None
        try:
            while found is None and not self._connection.closed:
                now = clock()
                if self._heartbeat.ticks != ticks:
                    ticks, moved = self._heartbeat.ticks, now
                own.heard, own.place, own.idle, own.slow = now, self._heartbeat.place, now - moved, self._heartbeat.slow
                self._pace.stands(own.idle, own.slow)
                if now - beaten >= self._beat:
                    beaten = now
                    self._tell("beat", own.place, own.idle, own.slow)
                    self._arm_faulthandler()
                self._tell_stop()
                found = self._hear(now) or self._judge(now)
            if found is not None and self._decide(found, own=False):
                end_process(replace(found, start=self.start), self._on_end)
        except Exception:
            log.exception("the watchdog over the other ranks has failed; going on without")
            self._tell("bye")
        faulthandler.cancel_dump_traceback_later()
        self._connection.close()

    def _hear(self, now: float, seconds: float = POLL_SECONDS) -> Failure | None:
        """Handles what arrives in that time; returns the verdict if that is among it, or rank 0's death."""
        try:
            while self._connection.poll(seconds):
                seconds, self._main.heard = 0.0, now
                match self._connection.recv():
                    case "beat", place:
                        self._main.place = place
                    case "stop", name:
                        self._stop.hear(name)
                        self._stop_told = True
                    case ("stacks?",):
                        self._tell("stacks", log_stacks())
                        if (path := self._log_file()) is not None:
                            write_flight_record(path.parent / f"nccl_rank_{self._member.rank}.json")
                    case "verdict", failure:
                        self._tell("bye")
                        return failure
                    case ("bye",):  # an answer, or rank 0 is done
                        self._tell("bye")
                        self._connection.close()
                        return None
        except verdict.GONE:
            self._connection.close()
            return None if self._leaving else verdict.vanished(self._main, self._heartbeat.place)
        return None

    def _judge(self, now: float) -> Failure | None:
        """Looks whether the launcher is gone, or rank 0 is silent or cut off; the coordinator has the first word."""
        own, main, grace = self._member, self._main, 2 * self._beat
        if self._launcher is not None and os.getppid() != self._launcher:
            reason = f"the launcher (pid {self._launcher}) of {own.name} vanished at {own.place}"
            failure = Failure(own.rank, own.host, own.place.step, reason, retry=True)
            self._tell("failed", failure)
            return self._hear(now, ANSWER_SECONDS) or failure
        limit, why = self._limits.of([own])
        if main.silence(now) > max(limit, verdict.SILENT_BEATS * self._beat) + grace:
            own.stacks = log_stacks()
            return verdict.hangs([main], [own, main], now, why, self._beat)
        lost = self._pace.waits(grace) and main.cut_off(now)
        return verdict.vanished(main, own.place, verdict.CUT_OFF) if lost else None

    def _arm_faulthandler(self) -> None:
        """Has a thread in C write all stacks to the log, should this one not come back before it counts as silent."""
        seconds = max(verdict.SILENT_BEATS * self._beat, 0.9 * self._limits.of([self._member])[0])
        with suppress(OSError, ValueError, AttributeError):  # a standard error that is no file, or a full disk
            if self._log is None and (path := self._log_file()) is not None:
                self._log = path.open("a")
            faulthandler.dump_traceback_later(seconds, file=self._log or sys.stderr)

    def _tell(self, *message: object) -> None:
        with self._sending:
            self._main.tell(*message)

    def _tell_stop(self) -> None:
        if self._stop.signal is not None and not self._stop_told:
            self._stop_told = True
            self._tell("stop", self._stop.signal.name)

    def _decide(self, failure: Failure, own: bool) -> bool:
        """Keeps the first verdict. Returns whether this is it; what this rank then does is only decided once."""
        with self._deciding:
            if first := self._verdict is None:
                self._verdict, self._own = replace(failure, start=self.start), own
        return first


def join(member: verdict.Member, addresses: Sequence[str], port: int, token: bytes) -> Connection:
    """Returns a rank's connection to the coordinator; raises a :class:`UserError` if no address leads there."""
    hosts = list(dict.fromkeys([*filter(None, [os.environ.get("MASTER_ADDR")]), *addresses]))
    for pause in (1.0, 2.0, 0.0):
        for host in hosts:
            with suppress(*verdict.GONE, AuthenticationError):
                connection = verdict.connection_over(socket.create_connection((host, port), timeout=5.0))
                answer_challenge(connection, token)
                deliver_challenge(connection, token)
                connection.send((member.rank, member.host))
                return connection
        time.sleep(pause * secrets.randbelow(1000) / 1000)  # not all of them at once
    where = f"rank 0 under none of {', '.join(hosts)} (port {port})"
    raise UserError(f"{member.name} reached {where}; all ports between the nodes of a job have to be open")
