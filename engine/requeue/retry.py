"""Which errors are another rank's fault, and which may be gone at the next start, on this node or another."""

from __future__ import annotations

import re
import traceback

import torch
import torch.distributed as dist

from engine.distributed.heartbeat import Place
from engine.errors import in_a_line
from engine.run_folder.failure import Failure

_LOST_PEER = re.compile(
    r"gloo/|Connection closed by peer|Connection reset by peer|Connection refused|Broken pipe|Timed out waiting|"
    r"Application timeout caused pair closure|Socket closed|NCCL (error|communicator)",
    re.IGNORECASE,
)
_MISUSE = re.compile(r"out of memory|CUDA malloc|ncclInvalid(Usage|Argument)|invalid (usage|argument)", re.IGNORECASE)
"""Communication errors that every start would meet again: memory, or two ranks on one device."""

DEVICE_ERRORS: dict[str, bool] = {
    # The card, its memory, its links or its node; another start, on another node, may well succeed.
    r"\bECC\b|uncorrectable|NVLink|\bXid\b|hardware (stack )?error|fallen off the bus|external device": True,
    r"unavailable|no CUDA-capable device|system not (yet )?initialized|driver error|unknown error": True,
    # From here a faulty card looks like a faulty kernel; the latter fails at the same step again, and twice is the end.
    r"unspecified launch failure|illegal memory access|misaligned address|illegal instruction": True,
    r"(CUBLAS|CUDNN)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)": True,
    # A wrong label or index, a build without this card's architecture, too large a batch, a fault of ours.
    r"device-side assert|no kernel image|invalid|out of memory|insufficient|_STATUS_|too many resources": False,
}
"""What an error of a device says, and whether the same start may succeed. What none of these matches may not."""


def is_communication_error(error: BaseException) -> bool:
    """Returns whether ``error`` says that ranks could not talk to each other, or repeats what rank 0 had to say."""
    return _lost_peer(error) or (isinstance(error, RuntimeError) and "rank 0 failed: " in str(error))


def timed_out(error: BaseException) -> bool:
    """Returns whether ``error`` came after a wait of the whole timeout, so that some other rank is late."""
    return "timed out" in str(error).lower() or "timeout" in str(error).lower()


def worth_retrying(error: BaseException) -> bool:
    """Returns whether the same start could succeed after ``error``: the fault is the network's or the hardware's."""
    if isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
        return False
    if _lost_peer(error):
        return not _MISUSE.search(str(error))
    said = str(error).split("\n", 1)[0]  # torch's advice follows, which names device-side asserts
    if not isinstance(error, getattr(torch, "AcceleratorError", ())) and not re.search("CUDA error|cuDNN error", said):
        return False
    return next((retry for text, retry in DEVICE_ERRORS.items() if re.search(text, said, re.IGNORECASE)), False)


def failure_of(rank: int, host: str, place: Place, error: BaseException) -> Failure:
    """Returns the failure of a rank that ``error`` ended at ``place``.

    What is told :func:`in a line <engine.errors.in_a_line>` has no traceback.
    """
    name, said = type(error).__name__, str(error).strip()
    trace, code = "".join(traceback.format_exception(error)), 1
    text = f"{name}: {said}" if said else name
    if (told := in_a_line(error)) is not None:
        (text, code), trace = told, ""
        said = text
    reason = f"rank {rank} on {host} failed at step {place.step} ({place.phase}): {text}"
    return Failure(rank, host, place.step, reason, name, trace, code, message=said, retry=worth_retrying(error))


def _lost_peer(error: BaseException) -> bool:
    said = isinstance(error, RuntimeError) and _LOST_PEER.search(str(error)) is not None
    return said or isinstance(error, dist.DistError)
