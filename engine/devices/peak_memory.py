"""How much memory this process has needed."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch


def take_peak_gb(device: torch.device) -> float:
    """Returns the most memory in use at once, in GB (10^9 bytes).

    On CUDA it is that of tensors on ``device`` since the last call; the allocator knows it, so nobody waits for the
    device. On a CPU it is this process's resident memory since its start.
    """
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak / 1e9
    with contextlib.suppress(OSError):  # Linux; getrusage there counts what the launcher had needed before the program
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def forget_peak(device: torch.device) -> None:
    """Has :func:`take_peak_gb` tell of what comes from now on alone, where the system can (Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
