"""Keeps large CPU tensors' memory within the process instead of asking the kernel for it at each step."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt's parameters, from glibc's malloc.h

LARGE = 1 << 30
"""Bytes up to which freed memory is kept; mallopt takes an int, so not much more is possible."""


def keep_large_blocks() -> bool:
    """Makes the C library reuse the memory of large tensors. Returns False where that is not glibc.

    To be called once, at the start of a process that computes on CPU. glibc serves every block above 32 MiB by a
    mapping of its own and gives it back when the tensor is freed, so that the kernel clears and maps the same pages
    again at each step: some 70,000 page faults for a Swin-T at batch 8, which cost more than its elementwise layers.
    The process keeps its peak until it ends, and the setting cannot be undone.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - only glibc has it; others have a mallopt that does nothing
        mallopt = libc.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE)) and bool(mallopt(M_TRIM_THRESHOLD, LARGE))
