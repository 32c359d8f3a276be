"""How many files and connections this process may have open: as many as the system lets it. Imports no torch."""

from __future__ import annotations

import os
import resource
import sys

from engine.errors import UserError

_PER_RANK = 3
"""Rank 0's connections to each other rank: the store's, the watchdog's, and gloo's."""
_OTHERS = 256
"""Files, loader workers and their pipes, libraries."""
_MOST = 2**20


def raise_descriptor_limit() -> None:
    """Raises this process's soft limit of open files, 1,024 on most systems, to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def require_descriptors(rank: int, world_size: int) -> None:
    """Raises a :class:`UserError` on rank 0 if it may not hold a connection to each of the other ranks."""
    needed = _PER_RANK * world_size + _OTHERS
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if rank == 0 and world_size > 1 and hard != resource.RLIM_INFINITY and hard < needed:
        raise UserError(
            f"rank 0 may have {hard} files and connections open, {world_size} ranks need {needed}: raise the "
            f"hard limit on its node, with `ulimit -Hn {needed}` before the launcher starts or LimitNOFILE={needed} in "
            "slurmd's or the login session's systemd unit"
        )


def open_standard_streams() -> None:
    """Has standard input, output and error lead nowhere where they are closed.

    Else, the next file that is opened would have their number, and get what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
