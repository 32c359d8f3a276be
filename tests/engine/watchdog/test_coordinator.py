"""Rank 0's side with many others, with unknown clients, and with a network that is gone."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge
from typing import Any

import pytest

from engine.distributed.heartbeat import Heartbeat, Place
from engine.errors import UserError
from engine.run_folder.failure import Failure
from engine.watchdog import coordinator as module
from engine.watchdog.coordinator import Coordinator
from engine.watchdog.verdict import Limits, Member, connection_over
from engine.watchdog.watchdog import join
from tests.distributed import ROOT, clean_environment

MANY = 60
LONG = Limits(600.0, 600.0)


def simulate(ranks: int, soft_limit: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.engine.watchdog.simulation", *map(str, (ranks, soft_limit, seconds))]
    ended = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    print(ranks, found)
    assert len(found["reasons"]) == 1
    assert found["reasons"][0].startswith("rank 77 on n77 hangs at step 12 in data; the others wait in backward")
    return found


def test_hundreds_of_ranks_join_under_a_low_limit_of_files_and_are_told_who_hangs() -> None:
    assert simulate(200, 128, 1.0)["told"] < 15


@pytest.mark.full
def test_a_thousand_ranks_are_told_in_time() -> None:
    assert simulate(1024, 1024, 10.0)["told"] < 15


@pytest.mark.full
def test_four_thousand_ranks_cost_little() -> None:
    assert simulate(4096, 1024, 20.0)["share"] < 0.05


@pytest.fixture
def start() -> Iterator[Callable[..., Coordinator]]:
    """Starts coordinators, which the end of the test closes."""
    started: list[Coordinator] = []

    def start(world_size: int, limits: Limits = LONG) -> Coordinator:
        heartbeat = Heartbeat()
        started.append(Coordinator(world_size, "n0", limits, heartbeat))
        return started[-1]

    yield start
    for each in started:
        each.close()


def enter(coordinator: Coordinator, rank: int) -> Connection:
    return join(Member(rank, f"n{rank}"), ["127.0.0.1"], coordinator.port, coordinator.token)


def verdict(connection: Connection, within: float = 15.0) -> Failure:
    """The verdict that a rank is told, after whatever else."""
    deadline = time.monotonic() + within
    while connection.poll(max(0.0, deadline - time.monotonic())):
        message = connection.recv()
        if message[0] == "verdict":
            return message[1]
    raise AssertionError("no verdict")


def test_all_hear_of_one_that_vanishes_where_it_was_last(start: Callable[..., Coordinator]) -> None:
    coordinator = start(MANY)
    ranks = {rank: enter(coordinator, rank) for rank in range(1, MANY)}
    assert coordinator.complete.wait(30)
    ranks[7].send(("beat", Place(12, 0, "data"), 0.0, False))
    ranks.pop(7).close()
    failures = {verdict(connection) for connection in ranks.values()}
    assert len(failures) == 1
    (failure,) = failures
    assert failure.reason.startswith("rank 7 on n7 vanished, last heard of at step 12 (data): ")
    assert (failure.rank, failure.host, failure.retry) == (7, "n7", True)


def test_one_that_joins_late_is_told_what_it_has_missed(start: Callable[..., Coordinator]) -> None:
    coordinator = start(3)
    enter(coordinator, 1).close()
    time.sleep(1.0)
    assert verdict(enter(coordinator, 2)).rank == 1


def test_a_rank_that_stops_within_a_message_holds_up_nobody(start: Callable[..., Coordinator]) -> None:
    coordinator = start(3)
    ranks = [enter(coordinator, rank) for rank in (1, 2)]
    assert coordinator.complete.wait(30)
    os.write(ranks[0].fileno(), struct.pack("!i", 1000) + b"a part of it")
    assert verdict(ranks[1], within=60).reason.startswith("rank 1 on n1 vanished, ")


def test_a_rank_that_takes_nothing_holds_up_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = socket.create_connection(listener.getsockname())
        member = Member(1, connection=connection_over(listener.accept()[0]))
    teller = threading.Thread(target=member.tell, args=("stop", "x" * 2 * 10**7), daemon=True)  # more than buffers hold
    teller.start()
    teller.join(60)
    assert member.mute and not teller.is_alive()
    other.close()


def test_unknown_clients_change_nothing_and_all_are_turned_away_in_the_end(start: Callable[..., Coordinator]) -> None:
    coordinator = start(2)
    said = [*[b""] * 7, b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff" * 5000, b"\x00\x00\x00\x04", b"x" * 10**6]
    unknown = []
    for text in said:
        unknown.append(socket.create_connection(("127.0.0.1", coordinator.port)))
        try:
            unknown[-1].sendall(text)
        except OSError:
            continue  # turned away already
    rank = enter(coordinator, 1)
    assert coordinator.complete.wait(30)
    for client in unknown:
        client.settimeout(30)
        try:
            while client.recv(4096):
                pass
        except ConnectionError:
            pass
        client.close()
    assert coordinator._listener.fileno() == -1, "it is closed"
    rank.send(("stop", "SIGUSR1"))
    assert next(m for m in iter(rank.recv, None) if m[0] != "beat") == ("stop", "SIGUSR1")


def test_a_rank_tries_all_addresses(start: Callable[..., Coordinator]) -> None:
    coordinator = start(2)
    join(Member(1, "n1"), ["255.255.255.255", "127.0.0.1"], coordinator.port, coordinator.token)
    assert coordinator.complete.wait(30)


def test_who_does_not_know_the_token_is_not_let_in(start: Callable[..., Coordinator]) -> None:
    coordinator = start(2)
    with pytest.raises(UserError, match=r"rank 1 on n1 reached rank 0 under none of 127\.0\.0\.1 \(port \d+\); all"):
        join(Member(1, "n1"), ["127.0.0.1"], coordinator.port, b"guess")
    stranger = connection_over(socket.create_connection(("127.0.0.1", coordinator.port)))
    with pytest.raises(AuthenticationError):  # and is told so before it is asked for anything
        answer_challenge(stranger, b"guess")
    stranger.close()
    assert not coordinator.complete.is_set()


def test_a_coordinator_that_fails_ends_nobody(
    start: Callable[..., Coordinator], caplog: pytest.LogCaptureFixture
) -> None:
    coordinator = start(3)
    ranks = [enter(coordinator, rank) for rank in (1, 2)]
    assert coordinator.complete.wait(30)
    ranks[0].send_bytes(b"no message of ours")
    for connection in (*ranks, coordinator.own):
        said = []
        while "bye" not in said:
            assert connection.poll(15), said
            said.append(connection.recv()[0])
        assert "verdict" not in said
    assert "the watchdog over all ranks has failed; going on without" in caplog.text


def test_a_rank_that_never_joins_is_missed(start: Callable[..., Coordinator], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_SECONDS", 1.0)
    failure = verdict(start(2).own)
    assert failure.reason.startswith("rank 1 vanished, last heard of at step 0 (start): ")


@pytest.mark.parametrize("training", [True, False], ids=["training goes on", "all wait"])
def test_a_network_that_is_gone_is_a_lost_node_only_if_the_others_wait(
    start: Callable[..., Coordinator], monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    """Rank 1 falls silent and its kernel acknowledges nothing, as one says that is asked about the connection."""
    monkeypatch.setattr("engine.watchdog.verdict.UNREACHABLE_SECONDS", 1.0)
    monkeypatch.setattr("engine.watchdog.verdict.unacknowledged_seconds", lambda connection: 30.0)
    coordinator = start(2)
    rank = enter(coordinator, 1)
    assert coordinator.complete.wait(30)
    rank.send(("beat", Place(5, 0, "data"), 0.0, False))
    begin, told = time.monotonic(), None
    while told is None and time.monotonic() < begin + (4 if training else 15):
        idle = 0.0 if training else time.monotonic() - begin
        coordinator.own.send(("beat", Place(6, 0, "data"), idle, False))
        while coordinator.own.poll(0.1):
            message = coordinator.own.recv()
            told = message[1] if message[0] == "verdict" else told
    if training:
        assert told is None
    else:
        assert told is not None and told.rank == 1 and told.retry
        assert "its node went down, or the network to it" in told.reason
    rank.close()
