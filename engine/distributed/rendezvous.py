"""How ranks that no torchrun has started find each other: rank 0 publishes addresses that it already listens on.

No port is chosen in advance, so jobs on one node cannot collide, and no host name has to resolve. All addresses of rank
0's node are offered and tried at once: a cluster's default network may be closed to jobs and another one open.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import selectors
import socket
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, cast

import torch.distributed as dist

from engine.distributed.interfaces import interface_of, list_interfaces, sort_addresses
from engine.errors import UserError

log = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 0.05, 2.0
"""Seconds between two looks for rank 0's note."""
PATIENCE_SECONDS = 5.0
"""How long an address is given to answer."""
HEAD_START_SECONDS = 1.0
"""How much longer a better address may take than one that has answered."""
_NETWORK = "network"


def meeting_name(environment: Mapping[str, str]) -> str:
    """Returns a name that only the ranks of this very start share: cluster, job, step and restart count."""
    if "SUBMITIT_LOCAL_JOB_ID" in environment:
        return f"{socket.gethostname()}.{environment['SUBMITIT_LOCAL_JOB_ID']}"
    keys = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return ".".join(environment.get(key, "0") for key in keys)


def own_addresses() -> list[str]:
    """Returns addresses under which other nodes may reach this one, best first; see :func:`sort_addresses`.

    The host's name is not looked up: where a network is closed, that may take longer than all the rest.
    """
    outward = []
    # No packet is sent: connecting a UDP socket only asks the kernel which interface leads outward.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        outward.append(probe.getsockname()[0])
    return list(dict.fromkeys([*sort_addresses(list_interfaces(), outward, os.environ), "127.0.0.1"]))


class Met(NamedTuple):
    """An address of rank 0 that answered, and this machine's end of that connection."""

    address: str
    own_end: str


def shared_store(folder: Path, rank: int, world_size: int, timeout: timedelta) -> dist.TCPStore:
    """Opens a store that all ranks share.

    Rank 0 listens on a port of the system's choice and writes ``address address ... port`` into a file in ``folder``,
    which all nodes see; the others read it and take the best address that answers. Where that is not the first one,
    gloo and NCCL are told to take that network too. Once all have met, rank 0 should call :func:`forget_meeting`.

    Raises:
        UserError: rank 0 was not found, or does not answer, within ``timeout``.
    """
    note, met, best = folder / meeting_name(os.environ), None, False
    if rank == 0:
        store = dist.TCPStore("0.0.0.0", 0, world_size, is_master=True, timeout=timeout, wait_for_workers=False)
        folder.mkdir(parents=True, exist_ok=True)
        aside = note.with_name(note.name + ".part")
        aside.write_text(" ".join([*own_addresses(), str(store.port)]))
        aside.replace(note)
    else:
        met, port, best = _find(note, rank, timeout)
        store = dist.TCPStore(met.address, port, world_size, is_master=False, timeout=timeout)
    if int(os.environ.get("SLURM_STEP_NUM_NODES") or 1) > 1:
        _agree_on_network(store, met, best)
    return store


def delays() -> Iterator[float]:
    """Yields seconds between looks: longer and longer, never alike on two of a thousand ranks at one file server."""
    delay = FIRST_DELAY
    while True:
        yield delay * random.uniform(0.5, 1.0)
        delay = min(1.5 * delay, LONGEST_DELAY)


def _find(note: Path, rank: int, timeout: timedelta) -> tuple[Met, int, bool]:
    """Waits until rank 0's note names an address that answers; with the port, and whether that is its first one."""
    deadline = time.monotonic() + timeout.total_seconds()
    fault = f"found no address of rank 0 in {note}; is the folder shared by all nodes?"
    for delay in delays():
        with contextlib.suppress(FileNotFoundError):
            *addresses, port = note.read_text().split()
            met = first_answering(addresses, int(port))
            if met is not None:
                return met, int(port), met.address == addresses[0]
            # It may also be a note that an earlier job of this number left when it was killed: look again.
            fault = (
                f"reached rank 0 under none of {', '.join(addresses)} (port {port}); where the nodes have another "
                "network, name it: NCCL_SOCKET_IFNAME"
            )
        left = deadline - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(delay, left))
    raise UserError(f"rank {rank} waited {timeout} and {fault}")


def first_answering(addresses: Sequence[str], port: int) -> Met | None:
    """Tries all addresses at once; returns the best that answers, in the order given, or None if none does."""
    answered: list[tuple[int, Met]] = []  # with their numbers
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as waiting:
        for number, address in enumerate(dict.fromkeys(addresses)):
            kind = socket.AF_INET6 if ":" in address else socket.AF_INET
            with contextlib.suppress(OSError):
                attempt = stack.enter_context(socket.socket(kind, socket.SOCK_STREAM))
                attempt.setblocking(False)
                if attempt.connect_ex((address, port)) in (0, errno.EINPROGRESS):
                    waiting.register(attempt, selectors.EVENT_WRITE, number)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(not answered or key.data < min(answered)[0] for key in waiting.get_map().values()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            for key, _ in waiting.select(left):
                waiting.unregister(key.fileobj)
                connection = cast(socket.socket, key.fileobj)
                with contextlib.suppress(OSError):
                    met = Met(connection.getpeername()[0], connection.getsockname()[0])  # raises if nobody answered
                    answered.append((key.data, met))
                    deadline = min(deadline, time.monotonic() + HEAD_START_SECONDS)
    return min(answered)[1] if answered else None


def _agree_on_network(store: dist.TCPStore, met: Met | None, best: bool) -> None:
    """Tells gloo and NCCL, on every rank, which network the nodes met on where it is not the one they would take.

    Ranks on rank 0's own node reach it under any address; what is open, those on other nodes say.
    """
    elsewhere = met if os.environ.get("SLURM_NODEID", "0") != "0" else None
    if elsewhere is not None:
        store.set(_NETWORK, "" if best else elsewhere.address)
    if found := store.get(_NETWORK).decode():
        name = interface_of(found if elsewhere is None else elsewhere.own_end)
        if name is not None:
            use_interface(name, os.environ)


def use_interface(name: str, environment: MutableMapping[str, str]) -> None:
    """Has gloo and NCCL take an interface, unless somebody has named one."""
    environment.setdefault("GLOO_SOCKET_IFNAME", name)
    environment.setdefault("NCCL_SOCKET_IFNAME", f"={name}")
    log.warning("the nodes do not reach each other over their first network: %s is used", name)


def forget_meeting(folder: Path) -> None:
    """Removes rank 0's note, after all ranks have met."""
    (folder / meeting_name(os.environ)).unlink(missing_ok=True)
