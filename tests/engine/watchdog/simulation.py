"""``python -m tests.engine.watchdog.simulation RANKS SOFT_LIMIT SECONDS``: many ranks, few processes.

The coordinator is the real one, in this process alone, whose soft limit of open files is lowered first. The ranks beat
for a while, then one of them hangs. Prints a line of JSON: seconds until all had joined, the share of a core that the
coordinator takes while all is well, seconds until all ranks but 0 were told of the hang, and what they were told.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from engine.distributed.heartbeat import Heartbeat, Place
from engine.process.descriptors import raise_descriptor_limit
from engine.watchdog.coordinator import Coordinator
from engine.watchdog.verdict import Limits, Member, beat_seconds
from engine.watchdog.watchdog import join

PROCESSES = 4
LIMIT_SECONDS = 2.0
CULPRIT = 77


def beat(ranks: range, world_size: int, to_main: Connection) -> None:
    """Joins as ``ranks`` and beats until all of them have been told a verdict; from a message on, they hang."""
    raise_descriptor_limit()
    to_main.send("torch is imported, as in ranks that have met")
    port, token = to_main.recv()

    def enter(rank: int) -> tuple[int, Connection]:
        return rank, join(Member(rank, f"n{rank}"), ["127.0.0.1"], port, token)

    with ThreadPoolExecutor(8) as pool:
        connections = dict(pool.map(enter, ranks))
    to_main.send("joined")
    selector = selectors.DefaultSelector()
    for rank, connection in connections.items():
        selector.register(connection, selectors.EVENT_READ, rank)
    interval, due = beat_seconds(world_size), {rank: time.monotonic() + rank / world_size for rank in ranks}
    hanging: float | None = None
    reasons: set[str] = set()
    while connections:
        now = time.monotonic()
        if hanging is None and to_main.poll():
            to_main.recv()
            hanging = now
        for rank, connection in connections.items():
            if now >= due[rank]:
                due[rank] += interval
                place = Place(12, int(rank != CULPRIT), "data" if rank == CULPRIT else "backward")
                connection.send(("beat", place, now - hanging if hanging is not None else 0.0, False))
        for key, _ in selector.select(0.05):
            connection = connections[key.data]
            message = connection.recv()
            if message[0] == "stacks?":
                connection.send(("stacks", f"what rank {key.data} does"))
            elif message[0] == "verdict":
                connection.send(("bye",))
                reasons.add(message[1].reason)
                selector.unregister(connections.pop(key.data))
    to_main.send((time.monotonic(), reasons))
    with suppress(EOFError):
        to_main.recv()  # its connections last until all is over


def simulate(world_size: int, soft_limit: int, seconds: float) -> dict[str, Any]:
    """Returns what the module says."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, hard))
    raise_descriptor_limit()
    context, ends = get_context("spawn"), []
    for number in range(PROCESSES):
        ours, theirs = context.Pipe()
        inputs = (range(1 + number, world_size, PROCESSES), world_size, theirs)
        context.Process(target=beat, args=inputs, daemon=True).start()
        ends.append(ours)
    for end in ends:
        end.recv()
    began, limits = time.monotonic(), Limits(LIMIT_SECONDS * beat_seconds(world_size), 600.0)
    coordinator = Coordinator(world_size, "n0", limits, Heartbeat())
    for end in ends:
        end.send((coordinator.port, coordinator.token))
    for end in ends:
        end.recv()
    assert coordinator.complete.wait(60)
    joined = time.monotonic() - began
    used, since, place = time.process_time(), time.monotonic(), Place(12, 1, "backward")
    while time.monotonic() < since + seconds:  # rank 0's own thread, which costs no less elsewhere
        coordinator.own.send(("beat", place, 0.0, False))
        time.sleep(1.0)
    share = (time.process_time() - used) / (time.monotonic() - since)
    hangs = time.monotonic()
    for end in ends:
        end.send("hang")
    deadline = hangs + 60
    while not all(end.poll() for end in ends) and time.monotonic() < deadline:
        coordinator.own.send(("beat", place, time.monotonic() - hangs, False))
        if coordinator.own.poll() and coordinator.own.recv()[0] == "stacks?":
            coordinator.own.send(("stacks", "what rank 0 does"))
        time.sleep(0.2)
    answers = [end.recv() for end in ends]
    told = max(moment for moment, _ in answers) - hangs
    reasons = set.union(*(said for _, said in answers))
    return {"joined": joined, "share": share, "told": told, "reasons": sorted(reasons)}


if __name__ == "__main__":
    print(json.dumps(simulate(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))), flush=True)
    os._exit(0)
