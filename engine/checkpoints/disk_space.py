"""Whether there is room for a run's checkpoints, found out before it starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from engine.checkpoints.host_copy import tensors_in
from engine.errors import UserError

OVERHEAD = 1 << 20
"""Bytes a checkpoint needs for configuration and class names."""
OVERHEAD_PER_TENSOR = 1 << 10
"""Bytes it needs for each tensor's name, header and alignment."""


def estimate_checkpoint_bytes(models: Sequence[nn.Module], optimizer: Optimizer, later: Sequence[Tensor] = ()) -> int:
    """Returns an upper bound of a checkpoint's size, in which the weights of ``models`` lie.

    Of parameters that the optimizer has not stepped yet, ``later`` ones among them, it is taken to hold two tensors and
    a step count each, as Adam does; of others what it holds is counted.
    """
    weights = [tensor for model in models for tensor in model.state_dict().values()]
    moments = tensors_in(list(optimizer.state.values()))
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    waiting = [*later, *(p for p in parameters if p not in optimizer.state)]
    kept = sum(OVERHEAD_PER_TENSOR + tensor.nbytes for tensor in (*weights, *moments))
    return OVERHEAD + kept + sum(3 * OVERHEAD_PER_TENSOR + 2 * tensor.nbytes for tensor in waiting)


def check_free_space(folder: Path, bytes_each: int, keep: int) -> None:
    """Makes sure that all checkpoints that will lie in ``folder`` at once have room: ``keep`` and the best one, and one
    more that is being written. What lies there already is counted as room, since it is part of them or gives way.

    Raises:
        UserError: the file system has less free; with the cures.
    """
    needed = max(0, (keep + 2) * bytes_each - _occupied(folder))
    free = free_bytes(folder)
    if free < needed:
        raise UserError(
            f"{folder}: {shown_bytes(free)} free, but checkpoints need {shown_bytes(needed)} more (each "
            f"{shown_bytes(bytes_each)}; checkpoint.keep={keep}, the best one, and one being written); make room, "
            f"lower checkpoint.keep (at least 2), or set experiment.root to a folder on a larger disk"
        )


def free_bytes(folder: Path) -> int:
    """Returns what this user may still write on the file system where ``folder`` is, or where it would be made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    return shutil.disk_usage(existing).free


def shown_bytes(count: int) -> str:
    """Returns ``1.4 GB`` or ``340 MB``."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _occupied(folder: Path) -> int:
    """Returns the bytes of the checkpoints in ``folder``, finished or not; a file of several names counts once."""
    patterns = ("step_*.pt", "last.pt", "best.pt", "*.pt.part")
    found = [path.stat() for pattern in patterns for path in folder.glob(pattern)]
    return sum({(entry.st_dev, entry.st_ino): entry.st_size for entry in found}.values())
