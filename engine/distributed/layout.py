"""Which process of how many this is, by the variables of its launcher; a single one without any.

Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from engine.distributed.slurm import expand_counts
from engine.errors import UserError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Layout:
    """Place of this process among all, as its launcher describes it."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    launcher: str = "single"
    """single, torchrun, slurm, or submitit for a job on this machine."""


def own_cores(layout: Layout, environment: Mapping[str, str]) -> int:
    """Returns how many cores this process should use, at least one.

    The ranks of a node share the cores that the process may run on; under srun each has ``--cpus-per-task`` of its own,
    whether or not they are bound to it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    per_task = environment.get("SLURM_CPUS_PER_TASK", "")
    if layout.launcher == "slurm" and per_task:
        return min(cores, int(per_task))
    return max(1, cores // layout.local_world_size)


def detect_layout(environment: Mapping[str, str]) -> Layout:
    """Reads the layout from environment variables.

    Raises:
        UserError: some of torchrun's variables are set and others are not, or a value makes no sense.
    """
    if environment.get("SUBMITIT_EXECUTOR") == "local":
        names = ("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID", "SUBMITIT_LOCAL_NTASKS")
        launcher = "submitit"
    elif "RANK" in environment or "WORLD_SIZE" in environment:
        missing = [name for name in TORCHRUN if name not in environment]
        if missing:
            raise UserError(
                f"environment: RANK or WORLD_SIZE is set, but {', '.join(missing)} not; "
                "start with torchrun, which sets them all, or unset RANK and WORLD_SIZE"
            )
        names, launcher = TORCHRUN[:4], "torchrun"
    elif "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
        launcher = "slurm"
    else:
        return Layout()
    try:
        rank, world_size, local_rank = (int(environment.get(name, "")) for name in names[:3])
        if launcher == "slurm":
            local_world_size = expand_counts(environment.get(names[3], ""))[int(environment.get("SLURM_NODEID", "0"))]
        else:
            local_world_size = int(environment[names[3]])
    except (ValueError, IndexError):
        shown = ", ".join(f"{name}={environment.get(name)!r}" for name in names)
        raise UserError(f"environment: a process layout of whole numbers expected, found {shown}") from None
    if not (0 <= rank < world_size and 0 <= local_rank < local_world_size <= world_size):
        shown = ", ".join(f"{name}={environment.get(name)}" for name in names)
        raise UserError(f"environment: impossible process layout {shown}")
    return Layout(rank, world_size, local_rank, local_world_size, launcher)
