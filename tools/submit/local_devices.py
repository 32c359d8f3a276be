"""Which of this machine's GPUs a local job takes, and how that is said."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from engine.distributed.gpus import is_slice, visible_entries
from engine.errors import UserError
from tools.submit.resources import Resources


def seen_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Returns the GPUs that torch sees here, as CUDA_VISIBLE_DEVICES would list them: numbers, or names of MIG slices.

    Of the variable's own entries that is what they amount to: none, if it is set to nothing.
    """
    import torch  # takes seconds, and only a local job needs it

    count, entries = torch.cuda.device_count(), visible_entries(environment)
    if not entries:  # torch sees none where the variable is set to nothing
        return [str(number) for number in range(count)]
    if count and is_slice(entries[0]):  # of slices CUDA shows a process one, however many it may take
        return entries
    return entries[:count]


def default_gpus(device: str) -> int:
    """Returns the GPUs of a local job that says nothing of them: one, if there is one and ``distributed.device`` may
    be one."""
    return 1 if device != "cpu" and seen_gpus() else 0


def divide_gpus(resources: Resources, jobs: int, first: int = 0) -> list[list[str]]:
    """Returns the GPUs of each of ``jobs`` that start together: others for each, as long as there are any.

    The ``first`` jobs, which run already, have the first of them.

    Raises:
        UserError: a job asks for more than torch sees.
    """
    each = resources.gpus_per_node
    if not each:
        return [[]] * jobs
    seen = seen_gpus()
    if each > len(seen):
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = "" if shown is None else f", and CUDA_VISIBLE_DEVICES is {shown!r}"
        cure = f"ask for at most {len(seen)}" if seen else "leave it away to train on the CPU"
        raise UserError(f"--gpus-per-node {each}: torch sees {len(seen)} GPU(s) on this machine{where}; {cure}")
    return [[seen[(job * each + n) % len(seen)] for n in range(each)] for job in range(first, first + jobs)]


def describe_devices(gpus: Sequence[str], tasks: int) -> str:
    """Returns what a local job of ``tasks`` processes trains on."""
    if gpus:
        return f"GPU {', '.join(gpus)} of this machine" + (", a process each" if tasks > 1 else "")
    return f"CPU, {tasks} process{'es' if tasks > 1 else ''}"
