"""Rank 0's side with many others, and what goes over the wire."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from engine.errors import UserError
from engine.failure import Failure
from engine.pulse import Place, Pulse
from engine.watch.hub import Hub
from engine.watch.spoke import Spoke
from engine.watch.verdict import Member
from engine.watch.wire import Link

MANY = 150


def nothing(name: str) -> None: ...


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub for many, whose thread runs until the test ends."""
    hub = Hub(Member(0, "n0", 0.0), MANY + 1, "secret", 600.0, Pulse(), nothing)
    end, begin = threading.Event(), time.monotonic()

    def work() -> None:
        while not end.is_set():
            hub.own.says(Place(), 0.0, time.monotonic() - begin)
            hub.poll(0.05, time.monotonic() - begin)
            hub.judge()

    thread = threading.Thread(target=work)
    thread.start()
    yield hub
    end.set()
    thread.join()
    hub.close()


def spoke(hub: Hub, rank: int, token: str = "secret") -> Spoke:
    return Spoke(Member(rank, f"n{rank}", 0.0), Member(0, "n0", 0.0), hub.address(), token, 600.0, Pulse(), nothing)


def test_many_ranks_come_at_once_and_all_hear_of_one_that_vanishes(hub: Hub) -> None:
    spokes: dict[int, Spoke] = {}

    def come(ranks: range) -> None:
        spokes.update({rank: spoke(hub, rank) for rank in ranks})

    threads = [threading.Thread(target=come, args=(range(1 + n, MANY + 1, 10),)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.complete.wait(10)
    for rank, each in spokes.items():
        each.own.says(Place(rank, 0, "data"), 0.0, 0.0)
        each.beat()
    spokes.pop(77).close()
    deadline = time.monotonic() + 10
    while any(each.verdict is None for each in spokes.values()) and time.monotonic() < deadline:
        for each in spokes.values():
            each.poll(0.0, 0.0)
    reasons = {each.verdict.reason if each.verdict else "" for each in spokes.values()}
    assert len(reasons) == 1
    assert reasons.pop().startswith("rank 77 on n77 vanished at step 77 (data): ")
    for each in spokes.values():
        each.close()


def test_a_wrong_token_is_turned_away(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.watch.spoke._TRIES", 1)
    with pytest.raises(
        UserError, match=r"rank 1 on n1 reached rank 0 under none of .*127\.0\.0\.1.* \(port \d+\); all"
    ):
        spoke(hub, 1, "guess")
    assert not hub.complete.is_set()


def test_a_rank_that_never_comes_is_missed() -> None:
    hub = Hub(Member(0, "n0", 0.0), 2, "secret", 600.0, Pulse(), nothing)
    hub.poll(0.0, 20.0)
    hub.judge()
    assert hub.verdict is None
    hub.own.says(Place(), 0.0, 40.0)
    hub.poll(0.0, 40.0)
    hub.judge()
    assert hub.verdict is not None
    assert hub.verdict.reason.startswith("rank 1 vanished at step 0 (start): ")
    hub.close()


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = socket.create_connection(listener.getsockname())
        second, _ = listener.accept()
    ends = Link(first), Link(second, longest_line=10_000)
    yield ends
    for end in ends:
        end.close()


def receive(link: Link) -> list[dict]:
    messages: list[dict] = []
    deadline = time.monotonic() + 5
    while not messages and not link.ended and time.monotonic() < deadline:
        messages = link.receive()
    return messages


def test_messages_arrive_whole_and_in_order(links: tuple[Link, Link]) -> None:
    failure = Failure(1, "n1", 12, "because\nof ü", traceback="x" * 500)
    links[0].send("at", place=Place(3, 1, "data"), idle=0.5)
    links[0].send("failed", failure=failure.to_json())
    time.sleep(0.05)
    first, second = receive(links[1])
    assert first == {"kind": "at", "place": [3, 1, "data"], "idle": 0.5}
    assert Failure.from_json(second["failure"]) == failure


def test_a_message_larger_than_all_buffers_is_sent_in_parts(links: tuple[Link, Link]) -> None:
    links[1].longest_line = 10**8
    links[0].send("stacks", text="x" * 10_000_000)
    assert not links[0].flush()
    messages: list[dict] = []
    while not messages:
        links[0].flush()
        messages = links[1].receive()
    assert len(messages[0]["text"]) == 10_000_000


@pytest.mark.parametrize(
    "text", [b"hello\n", b"[]\n", b"\xff\xfe\n", b"x" * 20_000], ids=["word", "list", "bytes", "long"]
)
def test_who_speaks_another_language_is_not_listened_to(links: tuple[Link, Link], text: bytes) -> None:
    links[0].socket.sendall(text)
    assert receive(links[1]) == []
    assert links[1].ended


def test_what_came_before_the_end_is_heard(links: tuple[Link, Link]) -> None:
    links[0].send("bye")
    links[0].close()
    time.sleep(0.05)
    assert receive(links[1]) == [{"kind": "bye"}]
    links[1].receive()
    assert links[1].ended
    links[1].send("bye")  # to nobody, and no error


def test_a_dead_node_is_noticed_in_time(links: tuple[Link, Link]) -> None:
    for link in links:
        assert link.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        read = {
            name: link.socket.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
            for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
        }
        assert read["KEEPIDLE"] + read["KEEPINTVL"] * read["KEEPCNT"] <= 12
        assert read["USER_TIMEOUT"] <= 12_000
