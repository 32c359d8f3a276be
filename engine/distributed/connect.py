"""How a process takes its place among the ranks: its device, the backend, and the process group that it joins."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, MutableMapping
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from engine.config.run import DistributedConfig
from engine.devices.kinds import device_kind
from engine.distributed.flight_recorder import prepare_flight_recorder
from engine.distributed.gpus import architecture_fault, device_index, granted_gpus, is_slice, own_slice, visible_entries
from engine.distributed.layout import Layout, own_cores
from engine.distributed.ranks import Ranks
from engine.distributed.rendezvous import forget_meeting, shared_store
from engine.errors import UserError
from engine.process.signals import StopRequest

log = logging.getLogger(__name__)

HANG_REPORT_SECONDS = 60.0
"""How much longer a collective waits than a hanging rank is tolerated, so that it can be named first.

The group keeps the limit of the start, which is the longer one, for good: older versions of torch know no public way to
change it, and it only counts where the watchdog has failed.
"""

LOCAL_PATIENCE = timedelta(minutes=2)
"""Longest wait for rank 0 where all ranks are started at once and nobody ends them when it dies."""


def choose_device(
    config: DistributedConfig, layout: Layout, environment: MutableMapping[str, str] = os.environ
) -> torch.device:
    """Returns the device of this process: its own GPU if there is one and it is wanted, else the CPU.

    Narrows CUDA_VISIBLE_DEVICES to this process's slice where it lists several of MIG; CUDA reads it once, so this has
    to come before anything else that asks for GPUs.

    Raises:
        UserError: CUDA is asked for, or Slurm granted it, and torch sees none or has no code for it, or there are fewer
            GPUs than processes on this node.
    """
    if config.device == "cpu":
        return torch.device("cpu")
    own = own_slice(environment, layout.local_rank, layout.local_world_size)
    if own is not None:
        environment["CUDA_VISIBLE_DEVICES"] = own
    if not torch.cuda.is_available():
        if config.device == "cuda":
            raise UserError("distributed.device: cuda is asked for, but torch sees no GPU; use device: auto or cpu")
        if unseen := unseen_gpus(environment):
            raise UserError(f"{unseen}; to train on CPUs, ask for no GPU: --gpus-per-node=0")
        if entries := visible_entries(environment):
            log.warning("CUDA_VISIBLE_DEVICES=%s, but torch sees no GPU: this runs on the CPU", ",".join(entries))
        return torch.device("cpu")
    index, slurm = 0, layout.launcher == "slurm"
    if own is None:
        visible = torch.cuda.device_count()
        index = device_index(visible, layout.local_rank, layout.local_world_size, slurm, environment)
    if built_for := torch.cuda.get_arch_list():
        name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
        if (fault := architecture_fault(name, capability, built_for)) is not None:
            raise UserError(fault)
    return torch.device("cuda", index)


def unseen_gpus(environment: Mapping[str, str]) -> str:
    """Says what may be wrong where Slurm granted GPUs and torch sees none; empty where it granted none."""
    if not (gpus := granted_gpus(environment)):
        return ""
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    return (
        f"Slurm granted this job {gpus} GPU(s) on this node, but torch {torch.__version__} sees none: it may be built "
        f"for CPUs, the driver too old, or CUDA_VISIBLE_DEVICES wrong ({'not set' if shown is None else repr(shown)})"
    )


def choose_backend(config: DistributedConfig, device: torch.device, environment: Mapping[str, str]) -> str:
    """Returns that of the device's kind, but gloo for MIG slices, whose ranks NCCL takes for several on one GPU.

    Raises:
        UserError: nccl is asked for without GPUs.
    """
    if config.backend == "nccl" and device.type != "cuda":
        raise UserError("distributed.backend: nccl needs GPUs; use gloo or auto on CPU")
    if config.backend != "auto":
        return config.backend
    sliced = device.type == "cuda" and any(map(is_slice, visible_entries(environment)))
    return "gloo" if sliced else device_kind(device).backend


def connect(config: DistributedConfig, layout: Layout, meeting_place: Path, stop: StopRequest | None = None) -> Ranks:
    """Joins the process group that ``layout`` describes; a single process needs none.

    Args:
        meeting_place: a folder that all nodes see, where ranks find each other that torchrun has not started.
        stop: set by this process's signal handlers, if it has any.

    Raises:
        UserError: the device or the backend cannot be had here, or the others cannot be met.
    """
    stop = StopRequest() if stop is None else stop  # a request that was not made is false
    device = choose_device(config, layout)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif layout.local_world_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(own_cores(layout, os.environ))
    backend = choose_backend(config, device, os.environ)  # also of one process: it may be a rehearsal for many
    if layout.world_size == 1:
        return Ranks(layout, device, stop=stop)
    timeout = timedelta(seconds=max(config.timeout_seconds, config.start_timeout_seconds) + HANG_REPORT_SECONDS)
    prepare_flight_recorder()
    if layout.launcher == "torchrun":
        dist.init_process_group(backend, timeout=timeout)
    else:
        patience = min(timeout, LOCAL_PATIENCE) if layout.launcher == "submitit" else timeout
        store = shared_store(meeting_place, layout.rank, layout.world_size, patience)
        dist.init_process_group(backend, store=store, rank=layout.rank, world_size=layout.world_size, timeout=timeout)
    ranks = Ranks(layout, device, backend, stop=stop)
    if layout.launcher != "torchrun":
        ranks.barrier()  # nccl's ranks may get here before all have met
        if ranks.is_main:
            forget_meeting(meeting_place)
    return ranks
