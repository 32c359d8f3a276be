"""A node's network that is really gone: a rank lives in a network namespace of its own, whose link is taken down."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from engine.distributed.heartbeat import Heartbeat, Place
from engine.run_folder.failure import Failure
from engine.watchdog.coordinator import Coordinator
from engine.watchdog.verdict import Limits, unacknowledged_seconds
from tests.distributed import ROOT, clean_environment

RANK = """
import sys, time
from engine.distributed.heartbeat import Place
from engine.watchdog.verdict import Member
from engine.watchdog.watchdog import join
connection = join(Member(1, "n1"), [sys.argv[1]], int(sys.argv[2]), bytes.fromhex(sys.argv[3]))
for step in range(10**6):
    connection.send(("beat", Place(step, 0, "data"), 0.0, False))
    time.sleep(1.0)
"""
LINK = f"wd{os.getpid() % 100_000}"


@dataclass
class Node:
    """Rank 0's coordinator here, and the other rank behind a link."""

    coordinator: Coordinator
    process: subprocess.Popen[bytes]

    def link(self, state: str) -> None:
        subprocess.run(["ip", "link", "set", f"{LINK}a", state], check=True)

    def go_on(self, seconds: float, moves: bool) -> Failure | None:
        """Has rank 0 beat for so long, or until it is told a verdict, which is returned."""
        begin, own = time.monotonic(), self.coordinator.own
        while time.monotonic() < begin + seconds:
            own.send(("beat", Place(6, 0, "data"), 0.0 if moves else time.monotonic() - begin, False))
            while own.poll(0.2):
                message = own.recv()
                if message[0] == "verdict":
                    return message[1]
        return None

    @property
    def heard(self) -> float:
        """For how long the other's kernel has been silent, in seconds."""
        connection = self.coordinator._members[1].connection
        assert connection is not None
        return unacknowledged_seconds(connection)


@pytest.fixture
def node() -> Iterator[Node]:
    commands = [
        f"ip netns add {LINK}",
        f"ip link add {LINK}a type veth peer name {LINK}b netns {LINK}",
        f"ip addr add 10.77.{os.getpid() % 250}.1/24 dev {LINK}a",
        f"ip -n {LINK} addr add 10.77.{os.getpid() % 250}.2/24 dev {LINK}b",
        f"ip link set {LINK}a up",
        f"ip -n {LINK} link set {LINK}b up",
    ]
    coordinator = Coordinator(2, "n0", Limits(600.0, 600.0), Heartbeat())
    try:
        for command in commands:
            if subprocess.run(command.split(), capture_output=True, check=False).returncode:
                pytest.skip("a network namespace cannot be made here")
        where = [f"10.77.{os.getpid() % 250}.1", str(coordinator.port), coordinator.token.hex()]
        inside = ["ip", "netns", "exec", LINK, sys.executable, "-c", RANK, *where]
        with subprocess.Popen(inside, cwd=ROOT, env=clean_environment()) as process:
            try:
                assert coordinator.complete.wait(60)
                yield Node(coordinator, process)
            finally:
                process.kill()
    finally:
        coordinator.close()
        subprocess.run(["ip", "netns", "del", LINK], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", f"{LINK}a"], capture_output=True, check=False)


@pytest.mark.full
def test_a_network_that_is_gone_for_half_a_minute_while_training_goes_on_ends_nothing(node: Node) -> None:
    assert node.go_on(3.0, moves=True) is None
    node.link("down")
    assert node.go_on(30.0, moves=True) is None
    assert node.heard > 25
    node.link("up")
    deadline = time.monotonic() + 90
    while node.heard > 5 and time.monotonic() < deadline:
        assert node.go_on(1.0, moves=True) is None
    assert node.heard < 5
    assert node.go_on(10.0, moves=False) is None, "all is well again, and a step that takes long is no loss"


@pytest.mark.full
def test_a_node_that_is_cut_off_while_all_wait_is_lost_within_fifteen_seconds(node: Node) -> None:
    assert node.go_on(3.0, moves=True) is None
    node.link("down")
    begin = time.monotonic()
    failure = node.go_on(60.0, moves=False)
    assert failure is not None and time.monotonic() - begin < 15
    assert failure.rank == 1 and failure.retry
    assert "its node went down, or the network to it" in failure.reason
