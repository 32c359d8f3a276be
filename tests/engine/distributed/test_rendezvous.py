"""How the ranks of a Slurm step find each other, also where the network that comes first is closed."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from engine.distributed import rendezvous
from engine.distributed.interfaces import Interface, interface_of, list_interfaces, selects, sort_addresses
from engine.distributed.rendezvous import (
    Met,
    delays,
    first_answering,
    meeting_name,
    own_addresses,
    shared_store,
    use_interface,
)
from engine.errors import UserError
from tests.distributed import ROOT, clean_environment, slurm_environment

# -- interfaces ------------------------------------------------------------------------------------------------------


def test_own_addresses_are_unique_and_end_at_this_machine() -> None:
    addresses = own_addresses()
    assert addresses[-1] in ("127.0.0.1", "::1")
    assert "127.0.0.1" in addresses
    assert len(set(addresses)) == len(addresses)
    assert {each.address for each in list_interfaces()} <= set(addresses)
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.7") is None


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("ib", "ib0 ib1"),
        ("eth,ib", "eth0 ib0 ib1"),
        ("=ib0", "ib0"),
        ("=ib1,eth0", "ib1 eth0"),
        ("^docker,lo", "eth0 ib0 ib1"),
        ("^=ib0", "ib1 eth0 docker0 lo"),
    ],
)
def test_the_patterns_of_nccl(pattern: str, chosen: str) -> None:
    names = ("ib0", "ib1", "eth0", "docker0", "lo")
    assert [name for name in names if selects(pattern, name)] == sorted(chosen.split(), key=names.index)


NODE = [
    Interface("lo", "127.0.0.1"),
    Interface("docker0", "172.17.0.1"),
    Interface("eth0", "10.0.0.5"),
    Interface("ib0", "10.1.0.5"),
    Interface("ib1", "10.2.0.5"),
    Interface("ib0", "2001:db8::5"),
]


@pytest.mark.parametrize(
    ("variables", "first", "last"),
    [
        ({}, ["10.0.0.5", "10.1.0.5", "10.2.0.5", "2001:db8::5"], ["172.17.0.1"]),
        ({"NCCL_SOCKET_IFNAME": "ib1"}, ["10.2.0.5"], ["10.0.0.5", "10.1.0.5", "2001:db8::5", "172.17.0.1"]),
        ({"NCCL_SOCKET_IFNAME": "^eth,docker"}, ["10.1.0.5", "10.2.0.5", "2001:db8::5"], ["10.0.0.5", "172.17.0.1"]),
        ({"GLOO_SOCKET_IFNAME": "ib0"}, ["10.1.0.5", "2001:db8::5", "10.0.0.5", "10.2.0.5"], ["172.17.0.1"]),
        ({"GLOO_SOCKET_IFNAME": "docker0"}, ["172.17.0.1", "10.0.0.5"], ["2001:db8::5"]),
    ],
)
def test_the_best_address_comes_first(variables: dict[str, str], first: list[str], last: list[str]) -> None:
    found = sort_addresses(NODE, ["10.0.0.5"], variables)
    assert found[: len(first)] == first
    assert sorted(found[-1 - len(last) : -1]) == sorted(last)
    assert found[-1] == "127.0.0.1"
    assert len(found) == len(NODE)


def test_what_the_environment_names_is_offered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the default route's address is none of those listed, such as an interface's second one."""
    monkeypatch.setattr(rendezvous, "list_interfaces", lambda: NODE)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "=ib1")
    assert own_addresses()[0] == "10.2.0.5"


def test_addresses_of_ipv6_that_other_machines_can_reach_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel's table: address, number, length of the prefix, scope, flags, name."""
    lines = ["20010db8000000000000000000000005 02 40 00 80 ib0", "fe800000000000000000000000000005 02 40 20 80 ib0"]
    monkeypatch.setattr(Path, "read_text", lambda path: "\n".join(lines))
    assert [each for each in list_interfaces() if ":" in each.address] == [Interface("ib0", "2001:db8::5")]


# -- the note --------------------------------------------------------------------------------------------------------


def test_meeting_names_differ_by_cluster_job_step_and_restart() -> None:
    base = slurm_environment(0, 2, "7")
    changes = [{}, {"SLURM_CLUSTER_NAME": "b"}, {"SLURM_JOB_ID": "8"}, {"SLURM_STEP_ID": "1"}]
    changes.append({"SLURM_RESTART_COUNT": "1"})
    names = [meeting_name({**base, **change}) for change in changes]
    assert len(set(names)) == len(names)
    assert meeting_name({**base, "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}) == names[0]
    names += [meeting_name({"SUBMITIT_LOCAL_JOB_ID": pid}) for pid in ("411", "412")]
    assert len(set(names)) == len(names)
    assert all("/" not in name for name in names)


def meeting(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    for key, value in slurm_environment(0, 2, "9").items():
        monkeypatch.setenv(key, value)
    return folder / meeting_name(slurm_environment(0, 2, "9"))


def test_rank_zero_that_never_comes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note = meeting(monkeypatch, tmp_path)
    with pytest.raises(UserError, match=rf"rank 1 waited 0:00:00.2\d* and found no address of rank 0 in {note}"):
        shared_store(tmp_path, 1, 2, timedelta(seconds=0.2))


def test_rank_zero_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meeting(monkeypatch, tmp_path).write_text("127.0.0.1 1")
    with pytest.raises(UserError, match=r"reached rank 0 under none of 127\.0\.0\.1 \(port 1\)"):
        shared_store(tmp_path, 1, 2, timedelta(seconds=0.2))


def test_ranks_share_the_store_under_the_first_address_that_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    note = meeting(monkeypatch, tmp_path)
    first = shared_store(tmp_path, 0, 2, timedelta(seconds=20))
    note.write_text(f"127.0.0.1 {first.port}")
    second = shared_store(tmp_path, 1, 2, timedelta(seconds=20))
    first.set("key", "of rank 0")
    assert second.get("key") == b"of rank 0"
    assert second.port == first.port


class Clock:
    """A time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_rank_that_waits_looks_for_the_note_a_few_dozen_times_a_minute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A thousand ranks look less than a thousand times a second; in the first second each looks a few times."""
    note, clock, looks = meeting(monkeypatch, tmp_path), Clock(), []
    read_text = Path.read_text

    def counting(path: Path, *args: str, **options: str) -> str:
        looks.extend([clock.now] if path == note else [])
        return read_text(path, *args, **options)

    monkeypatch.setattr(rendezvous, "time", clock)
    monkeypatch.setattr(Path, "read_text", counting)
    with pytest.raises(UserError, match="found no address of rank 0"):
        shared_store(tmp_path, 1, 2, timedelta(seconds=60))
    assert 30 < len(looks) < 70
    assert sum(look < 1 for look in looks) >= 4
    assert max(later - earlier for earlier, later in itertools.pairwise(looks)) <= 2


def test_ranks_do_not_look_at_the_same_moments() -> None:
    starts = {tuple(itertools.islice(delays(), 20)) for _ in range(100)}
    assert len(starts) == 100
    assert all(0 < delay <= 2 for start in starts for delay in start)


# -- addresses -------------------------------------------------------------------------------------------------------


def listening(address: str = "127.0.0.1", port: int = 0) -> socket.socket:
    return socket.create_server((address, port))


def test_the_best_address_that_answers_is_taken() -> None:
    with listening() as first:
        port = first.getsockname()[1]
        assert first_answering(["127.0.0.2", "127.0.0.1"], port) == Met("127.0.0.1", "127.0.0.1")
        with listening("127.0.0.2", port):
            assert first_answering(["127.0.0.2", "127.0.0.1"], port) == Met("127.0.0.2", "127.0.0.1")
    assert first_answering(["127.0.0.2", "127.0.0.1", "no address"], port) is None


def test_gloo_and_nccl_take_the_network_that_is_open_unless_somebody_chose_one() -> None:
    environment: dict[str, str] = {"NCCL_SOCKET_IFNAME": "^eth"}
    use_interface("ib0", environment)
    assert environment == {"NCCL_SOCKET_IFNAME": "^eth", "GLOO_SOCKET_IFNAME": "ib0"}


def test_which_network_is_open_only_ranks_on_other_nodes_say(monkeypatch: pytest.MonkeyPatch) -> None:
    store, met = dist.HashStore(), Met("10.77.0.1", "10.77.0.1")
    for node, said in (("1", "10.78.0.1"), ("0", "10.78.0.1"), ("1", "")):  # on rank 0's own node all are
        monkeypatch.setenv("SLURM_NODEID", node)
        best = not said or node == "0"
        rendezvous._agree_on_network(store, Met("10.78.0.1", "10.78.0.2") if not best else met, best)
        assert store.get("network").decode() == said


RANK = """
import os, sys, time
from datetime import timedelta
from pathlib import Path
import torch, torch.distributed as dist
from engine.distributed.rendezvous import shared_store
rank, began = int(os.environ["SLURM_PROCID"]), time.monotonic()
store = shared_store(Path(sys.argv[1]), rank, 3, timedelta(seconds=120))
print(f"met after {time.monotonic() - began:.1f} s over {os.environ.get('GLOO_SOCKET_IFNAME')}", flush=True)
dist.init_process_group("gloo", store=store, rank=rank, world_size=3, timeout=timedelta(seconds=120))
total = torch.tensor(float(rank))
dist.all_reduce(total)
print(f"sum {total.item():.0f}", flush=True)
store.get("bye") if rank else (time.sleep(1), store.set("bye", ""))
"""


@pytest.fixture
def nodes() -> Iterator[Callable[[int], list[str]]]:
    """Two nodes with two networks: on eth0, the default route's, all packets are lost; ib0 is open.

    Gives the beginning of a command that runs on a node.
    """
    names = [f"swin{os.getpid()}{letter}" for letter in "ab"]
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("networks of one's own need root and `ip`")

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    try:
        try:
            for name in names:
                ip("netns", "add", name)
                ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "nowhere")
            ip("link", "add", "ib0", "netns", names[0], "type", "veth", "peer", "name", "ib0", "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"networks of one's own are not permitted here: {error.stderr.strip()}")
        for number, name in enumerate(names, 1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", name, "address", "add", f"10.78.0.{number}/24", "dev", "ib0")
            for link in ("lo", "nowhere", "eth0", "ib0"):
                ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "route", "add", "default", "via", "10.77.0.254")
            other = f"10.77.0.{3 - number}"  # its packets are sent, to nobody
            ip("-n", name, "neighbour", "add", other, "lladdr", "02:00:00:00:00:01", "dev", "eth0")
        yield lambda node: ["ip", "netns", "exec", names[node]]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_ranks_meet_where_the_default_network_is_closed(nodes: Callable[[int], list[str]], tmp_path: Path) -> None:
    """Ranks 0 and 1 are on one node, 2 on another; gloo, which would take eth0, is told of ib0 on all of them."""
    ranks = []
    for rank, node in enumerate((0, 0, 1)):
        variables = {**slurm_environment(rank, 3, "7"), "SLURM_NODEID": str(node), "SLURM_STEP_NUM_NODES": "2"}
        variables["RES_OPTIONS"] = "timeout:1 attempts:1"  # torch looks names up, where no server answers
        command = [*nodes(node), sys.executable, "-c", RANK, str(tmp_path)]
        ranks.append(
            subprocess.Popen(
                command, env=clean_environment(variables), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    outputs = []
    try:
        for rank in ranks:
            outputs.append(rank.communicate(timeout=300)[0].decode())
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert all("over ib0\n" in output and "sum 3" in output for output in outputs), outputs
    assert [rank.returncode for rank in ranks] == [0, 0, 0], outputs
