"""Errors that a rank gets because another one is gone or late."""

from __future__ import annotations

import re

import torch.distributed as dist

_GLOO = re.compile(
    r"gloo/|Connection closed by peer|Connection reset by peer|Connection refused|Broken pipe|Timed out waiting|"
    r"Application timeout caused pair closure|Socket closed|rank 0 failed: |NCCL (error|communicator)",
    re.IGNORECASE,
)
_TIMEOUT = re.compile(r"timed out|timeout", re.IGNORECASE)


def is_communication_error(error: BaseException) -> bool:
    """Whether ``error`` says that ranks could not talk to each other, or repeats what rank 0 had to say."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and bool(_GLOO.search(str(error)))


def timed_out(error: BaseException) -> bool:
    """Whether ``error`` came after a wait of the whole timeout, so that some other rank is late."""
    return bool(_TIMEOUT.search(str(error)))
