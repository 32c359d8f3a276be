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
from functools import partial
from pathlib import Path

import torch.distributed as dist

from engine.errors import UserError


def meeting_name(environment: Mapping[str, str]) -> str:
    """A name that only the ranks of this very start share: cluster, job, step and restart count."""
    keys = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
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
    which all nodes see; the others read it and take the first address that answers. Once all have met, rank 0 should
    call :func:`forget_meeting`.

    Raises:
        UserError: rank 0 was not found, or does not answer, within ``timeout``.
    """
    note = folder / meeting_name(os.environ)
    if rank == 0:
        store = dist.TCPStore("0.0.0.0", 0, world_size, is_master=True, timeout=timeout, wait_for_workers=False)
        folder.mkdir(parents=True, exist_ok=True)
        aside = note.with_name(note.name + ".part")
        aside.write_text(" ".join([*own_addresses(), str(store.port)]))
        aside.replace(note)
        return store
    deadline = time.monotonic() + timeout.total_seconds()
    fault = f"found no address of rank 0 in {note}; is the folder shared by all nodes?"
    while time.monotonic() < deadline:
        if note.exists():
            *addresses, port = note.read_text().split()
            for address in filter(partial(_answers, port=int(port)), addresses):
                return dist.TCPStore(address, int(port), world_size, is_master=False, timeout=timeout)
            # It may also be a note that an earlier job of this number left when it was killed: look again.
            fault = f"reached rank 0 under none of {', '.join(addresses)} (port {port})"
        time.sleep(0.05)
    raise UserError(f"rank {rank} waited {timeout} and {fault}")


def forget_meeting(folder: Path) -> None:
    """Removes rank 0's note, after all ranks have met."""
    (folder / meeting_name(os.environ)).unlink(missing_ok=True)


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True
