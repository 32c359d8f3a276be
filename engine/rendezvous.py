"""How the ranks of a Slurm step find each other: rank 0 publishes an address that it already listens on.

No port is chosen in advance, so jobs on one node cannot collide, and no host name has to resolve.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from engine.errors import UserError


def meeting_name(environment: Mapping[str, str]) -> str:
    """A name that only the ranks of this very start share: job, step and restart count."""
    keys = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return ".".join(environment.get(key, "0") for key in keys)


def own_addresses() -> list[str]:
    """Addresses under which other nodes may reach this one, best first."""
    found = []
    # No packet is sent: connecting a UDP socket only asks the kernel which interface leads outward.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):
        found += [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    return list(dict.fromkeys([*found, "127.0.0.1"]))


def shared_store(folder: Path, rank: int, world_size: int, timeout: timedelta) -> dist.TCPStore:
    """A store that all ranks of this Slurm step share.

    Rank 0 listens on a port of the system's choice and writes ``address address ... port`` into a file in ``folder``,
    which all nodes see; the others read it and take the first address that answers.
    """
    note = folder / meeting_name(os.environ)
    if rank == 0:
        store = dist.TCPStore("0.0.0.0", 0, world_size, is_master=True, timeout=timeout, wait_for_workers=False)
        folder.mkdir(parents=True, exist_ok=True)
        aside = note.with_suffix(".part")
        aside.write_text(" ".join([*own_addresses(), str(store.port)]))
        aside.replace(note)
        return store
    deadline = time.monotonic() + timeout.total_seconds()
    while not note.exists():
        if time.monotonic() > deadline:
            raise UserError(f"rank {rank} waited {timeout} for rank 0's address in {note}; is the folder shared?")
        time.sleep(0.05)
    *addresses, port = note.read_text().split()
    for address in addresses:
        try:
            socket.create_connection((address, int(port)), timeout=5).close()
        except OSError:
            continue
        return dist.TCPStore(address, int(port), world_size, is_master=False, timeout=timeout)
    raise UserError(f"rank {rank} reaches rank 0 under none of {', '.join(addresses)} (port {port})")
