"""Every rank knows of the others, so that a failure, a death, a hang or the launcher's end is named and ends them all.

One thread on each rank, which the main thread need not be in a state to help: it may wait in a collective for ever.
Rank 0's hears all others (:mod:`engine.watch.hub`), the others' hear rank 0's (:mod:`engine.watch.spoke`).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import secrets
import socket
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from engine.dist import Ranks
from engine.failure import Failure
from engine.pulse import Place, Pulse
from engine.signals import StopRequest
from engine.watch.communication import is_communication_error, timed_out
from engine.watch.ending import Exit, end_later, end_process
from engine.watch.hub import CONNECT_SECONDS, Hub
from engine.watch.spoke import Spoke
from engine.watch.verdict import BEAT_SECONDS, AwakeClock, Member, failed

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
VERDICT_SECONDS = 5.0
"""How long a rank whose collective failed waits to hear whose fault it was."""
OWN_END_SECONDS = 10.0
"""How long a rank that failed by itself may take to end itself."""


class Watch:
    """Watches over all ranks until :meth:`close`. A context manager; an error that leaves it is settled first."""

    def __init__(
        self,
        ranks: Ranks,
        pulse: Pulse,
        stop: StopRequest,
        timeout_seconds: float,
        on_end: Callable[[Failure], None],
        *,
        launcher_pid: int | None = None,
        exit_process: Exit = os._exit,
    ) -> None:
        """All ranks call this at the same time.

        Args:
            pulse: where this rank is; its main thread writes it.
            stop: shared with the other ranks: a signal sent to any is heard by all.
            timeout_seconds: how long nothing may move before that counts as a hang.
            on_end: records a failure that is not this rank's own doing; called in a thread, with some seconds' time,
                after which the process ends with the failure's exit code.
            launcher_pid: the process whose end ends this one, if a launcher started it; the parent by default.
            exit_process: ends the process at once.

        Raises:
            UserError: rank 0 cannot be reached from here.
        """
        self._ranks, self._pulse, self._stop, self._on_end, self._exit = ranks, pulse, stop, on_end, exit_process
        self._launcher = None if ranks.layout.launcher == "single" else launcher_pid or os.getppid()
        self._host = socket.gethostname()
        self._verdict: Failure | None = None
        self._own = False
        self._deciding = threading.Lock()
        self._known, self._ended = threading.Event(), threading.Event()
        self._guard: threading.Timer | None = None
        self._requests: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._leaving = False
        self._stop_told = False
        self._side, self.start = self._join(timeout_seconds)
        self._bell, self._ring = socket.socketpair()
        self._side.register(self._bell, self._serve)
        os.register_at_fork(after_in_child=_closing(weakref.ref(self)))
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()
        if isinstance(self._side, Hub):
            self._side.complete.wait(CONNECT_SECONDS)  # a rank that has not come by then is missed by the thread

    # -- for the main thread ---------------------------------------------------------------------------------------

    def report(self, error: BaseException, step: int | None = None) -> Failure:
        """This rank has failed by itself: tells all others and returns the failure, for the caller to record.

        The process is ended if it has not done so itself, or closed this watch, after some seconds. Does not return if
        it is being ended already for another rank's failure.
        """
        place = self._pulse.place
        step = place.step if step is None else step
        failure = failed(self._ranks.rank, self._host, step, place.phase, error, self.start)
        if not self._decide(failure, own=True):
            return self._end_with_the_others()
        if self._thread.is_alive():
            self._guard = end_later(failure.exit_code, OWN_END_SECONDS, self._exit)
            self._request(lambda: self._side.conclude(failure))
        return failure

    def settle(self, error: BaseException) -> Failure:
        """This rank's main thread was left by ``error``: finds out whose fault that is.

        A failed collective is usually another rank's; then, as with all verdicts about others, this does not return,
        since the watch ends the process. Else the error is reported as this rank's own, see :meth:`report`.
        """
        if is_communication_error(error) and self._thread.is_alive():
            self._request(lambda: self._in_trouble(error), wait=False)
            self._known.wait(VERDICT_SECONDS)
        return self.report(error)

    def close(self) -> None:
        """Ends the watch; the others, who may end seconds earlier or later, do not take it for a death."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._request(self._leave)
            if self._verdict is not None:
                self._end_with_the_others()
            self._thread.join(timeout=1.0)
        if self._guard is not None:
            self._guard.cancel()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._verdict is None:
            self.settle(error)
        self.close()

    # -- the watch thread ------------------------------------------------------------------------------------------

    def _join(self, timeout: float) -> tuple[Hub | Spoke, str]:
        """This rank's side, and the name of this start."""
        rank, world_size = self._ranks.rank, self._ranks.world_size
        own = Member(rank, self._host, 0.0)
        token, start = secrets.token_hex(16), secrets.token_hex(8)
        hub = Hub(own, world_size, token, timeout, self._pulse, self._hear_stop) if rank == 0 else None
        if hub is not None and world_size == 1:
            return hub, start
        own_note = {"address": hub.address() if hub else "", "host": self._host, "token": token, "start": start}
        note = json.loads(self._ranks.main_decides(lambda: json.dumps(own_note)))
        if hub is not None:
            return hub, start
        main = Member(0, note["host"], 0.0)
        spoke = Spoke(own, main, note["address"], note["token"], timeout, self._pulse, self._hear_stop)
        return spoke, note["start"]

    def _run(self) -> None:
        try:
            self._watch()
        except Exception:
            log.exception("the watch over the other ranks has failed; going on without")
            with suppress(Exception):
                self._side.leave()
        finally:
            self._close_sockets()

    def _watch(self) -> None:
        clock = AwakeClock()
        place, ticks, changed, beat = Place(), -1, 0.0, -BEAT_SECONDS
        while not self._leaving:
            now = clock()
            if (self._pulse.place, self._pulse.ticks) != (place, ticks):
                place, ticks, changed = self._pulse.place, self._pulse.ticks, now
            self._side.own.says(place, now - changed, now)
            if now - beat >= BEAT_SECONDS:
                self._side.beat()
                beat = now
            self._tell_stop()
            self._side.judge()
            if self._launcher is not None and os.getppid() != self._launcher and self._side.verdict is None:
                self._side.conclude(self._orphaned(place))
            verdict = self._side.verdict
            if verdict is not None and self._decide(verdict := replace(verdict, start=self.start), own=False):
                end_process(verdict, self._on_end, self._exit)
                self._ended.set()
            self._side.poll(POLL_SECONDS, clock())

    def _orphaned(self, place: Place) -> Failure:
        rank = self._ranks.rank
        reason = f"the launcher (pid {self._launcher}) of rank {rank} on {self._host} vanished at {place}"
        return Failure(rank, self._host, place.step, reason, retry=True)

    def _hear_stop(self, name: str) -> None:
        self._stop.hear(name)
        self._stop_told = self._stop_told or not self._ranks.is_main  # rank 0 tells the rest

    def _in_trouble(self, error: BaseException) -> None:
        self._side.own.place = self._pulse.place
        self._side.trouble(self._ranks.rank, timed_out(error))

    def _tell_stop(self) -> None:
        if self._stop.signal is not None and not self._stop_told:
            self._stop_told = True
            self._side.tell_stop(self._stop.signal.name)

    def _leave(self) -> None:
        self._tell_stop()
        self._side.leave()
        self._leaving = True

    def _serve(self) -> None:
        """Does what the main thread asked for."""
        with suppress(BlockingIOError):
            self._bell.recv(4096, socket.MSG_DONTWAIT)
        while not self._requests.empty():
            self._requests.get()()

    # -- between the two -------------------------------------------------------------------------------------------

    def _decide(self, failure: Failure, own: bool) -> bool:
        """The first verdict stands. Returns whether this is it; what this rank then does is only decided once."""
        with self._deciding:
            if self._verdict is not None:
                return False
            self._verdict, self._own = failure, own
        self._known.set()
        return True

    def _end_with_the_others(self) -> Failure:
        """Waits for the watch thread to end the process."""
        assert self._verdict is not None
        if not self._own:
            self._ended.wait(OWN_END_SECONDS)
        return self._verdict

    def _request(self, action: Callable[[], object], wait: bool = True) -> None:
        """Has the watch thread do something, and by default waits for it, but not for ever."""
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._requests.put(act)
        with suppress(OSError):
            self._ring.send(b"!")
        if wait:
            done.wait(OWN_END_SECONDS / 2)

    def _close_sockets(self) -> None:
        self._side.close()
        self._bell.close()
        self._ring.close()


def _closing(watch: weakref.ref[Watch]) -> Callable[[], None]:
    """For a forked child, a data worker: one that kept a dead rank's connection open would keep its death hidden."""

    def close() -> None:
        alive = watch()
        if alive is not None:
            alive._close_sockets()

    return close
