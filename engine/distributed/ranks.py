"""Which process of how many this is, and what the processes tell each other.

The layout comes from the environment: torchrun's variables, those of a Slurm step started by srun, or neither, which
means a single process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist

from engine.config.sections import DistributedConfig
from engine.devices.kinds import device_kind
from engine.distributed.flight_recorder import prepare_flight_recorder
from engine.distributed.gpus import architecture_fault, device_index, granted_gpus, is_slice, own_slice, visible_entries
from engine.distributed.heartbeat import Heartbeat
from engine.distributed.rendezvous import forget_meeting, shared_store
from engine.distributed.signals import StopRequest
from engine.distributed.slurm import expand_counts
from engine.distributed.transfer import Bytes, broadcast, pack, unpack
from engine.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")

HANG_REPORT_SECONDS = 60.0
"""How much longer a collective waits than a hanging rank is tolerated, so that it can be named first.

The group keeps the limit of the start, which is the longer one, for good: older versions of torch know no public way to
change it, and it only counts where the watchdog has failed.
"""
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Layout:
    """Place of this process among all, as its launcher describes it."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    launcher: str = "single"
    """single, torchrun or slurm."""


def detect_layout(environment: Mapping[str, str]) -> Layout:
    """Reads the layout from environment variables.

    Raises:
        UserError: some of torchrun's variables are set and others are not, or a value makes no sense.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
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


@dataclass(frozen=True)
class Ranks:
    """This process's place, its device, and the few collectives that the suite uses."""

    layout: Layout
    device: torch.device
    backend: str | None = None
    """nccl or gloo; None in a single process."""
    heartbeat: Heartbeat = field(default_factory=Heartbeat, compare=False)
    """Where this process is, for the watchdog."""
    stop: StopRequest = field(default_factory=StopRequest, compare=False)
    """Whether this process was asked to stop; the ranks have to agree on when they do."""

    @property
    def rank(self) -> int:
        return self.layout.rank

    @property
    def world_size(self) -> int:
        return self.layout.world_size

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the run's folder."""
        return self.layout.rank == 0

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sums ``tensor`` over the ranks, in place on each of them; returns it."""
        self.heartbeat.move()
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of all ranks, (n_r, ...) from each, rank after rank, on every rank. The counts may differ."""
        if self.world_size == 1:
            return rows
        counts = self.gather_counts(rows.shape[0])
        padded = rows.new_zeros((max(counts), *rows.shape[1:]), device=self.device)
        padded[: rows.shape[0]] = rows.to(self.device)
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(rows.device)

    def gather_counts(self, count: int) -> list[int]:
        """One whole number from each rank."""
        counts = torch.zeros(self.world_size, dtype=torch.int64, device=self.device)
        counts[self.rank] = count
        return self.sum_(counts).tolist()

    def gather_texts(self, text: str) -> list[str]:
        """One text from each rank, on every rank."""
        data = torch.tensor(list(text.encode(errors="surrogateescape")), dtype=torch.uint8)
        if self.world_size == 1:
            return [text]
        parts = self.gather_rows(data).split(self.gather_counts(len(data)))
        return [bytes(part.tolist()).decode(errors="surrogateescape") for part in parts]

    def main_decides(self, decide: Callable[[], str]) -> str:
        """What ``decide`` returns on rank 0, on every rank; a UserError that it raises there is raised on all."""
        answer, failure = "", None
        if self.is_main:
            try:
                answer = "=" + decide()
            except Exception as error:
                answer, failure = ("!" if isinstance(error, UserError) else "?") + str(error), error
        answer = self.gather_texts(answer)[0]
        if failure is not None:
            raise failure
        if answer.startswith("!"):
            raise UserError(answer[1:])
        if answer.startswith("?"):
            raise RuntimeError(f"rank 0 failed: {answer[1:]}")
        return answer[1:]

    def from_main(self, make: Callable[[], T]) -> T:
        """What ``make`` returns on rank 0, on every rank, so that only one reads it; errors as above.

        Arrays and tensors arrive bit by bit, at the cost of their bytes, see :func:`engine.distributed.transfer.pack`.
        """
        made: list[T] = []
        parts: list[Bytes] = []

        def decide() -> str:
            made.append(make())
            if self.world_size > 1:
                parts.extend(pack(made[0]))
            return ""

        self.main_decides(decide)
        if self.world_size > 1:
            sent = broadcast(parts if self.is_main else None, self.device, self.heartbeat.tick)
            if not self.is_main:
                made.append(cast(T, unpack(sent)))
        return made[0]

    def barrier(self) -> None:
        """Waits until every rank is here."""
        if self.world_size > 1:
            self.sum_(torch.zeros(1, device=self.device)).item()

    def close(self) -> None:
        """Leaves the process group."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def choose_device(
    config: DistributedConfig, layout: Layout, environment: MutableMapping[str, str] = os.environ
) -> torch.device:
    """The device of this process: its own GPU if there is one and it is wanted, else the CPU.

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
    """What may be wrong where Slurm granted GPUs and torch sees none; empty where it granted none."""
    if not (gpus := granted_gpus(environment)):
        return ""
    shown = environment.get("CUDA_VISIBLE_DEVICES")
    return (
        f"Slurm granted this job {gpus} GPU(s) on this node, but torch {torch.__version__} sees none: it may be built "
        f"for CPUs, the driver too old, or CUDA_VISIBLE_DEVICES wrong ({'not set' if shown is None else repr(shown)})"
    )


def choose_backend(config: DistributedConfig, device: torch.device, environment: Mapping[str, str]) -> str:
    """That of the device's kind, but gloo for MIG slices, whose ranks NCCL takes for several on one GPU.

    Raises:
        UserError: nccl is asked for without GPUs.
    """
    if config.backend == "nccl" and device.type != "cuda":
        raise UserError("distributed.backend: nccl needs GPUs; use gloo or auto on CPU")
    if config.backend != "auto":
        return config.backend
    sliced = device.type == "cuda" and any(map(is_slice, visible_entries(environment)))
    return "gloo" if sliced else device_kind(device).backend


def _own_cores(layout: Layout) -> int:
    """Slurm's count for this task where it gives one, else an equal part of the cores this process may run on."""
    count = os.environ.get("SLURM_CPUS_PER_TASK", "") if layout.launcher == "slurm" else ""
    return int(count or max(1, len(os.sched_getaffinity(0)) // layout.local_world_size))


def connect(config: DistributedConfig, layout: Layout, meeting_place: Path, stop: StopRequest | None = None) -> Ranks:
    """Joins the process group that ``layout`` describes; a single process needs none.

    Args:
        meeting_place: a folder that all nodes see, where Slurm's ranks find each other.
        stop: set by this process's signal handlers, if it has any.

    Raises:
        UserError: the device or the backend cannot be had here, or the others cannot be met.
    """
    stop = StopRequest() if stop is None else stop  # a request that was not made is false
    device = choose_device(config, layout)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif layout.local_world_size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(_own_cores(layout))
    backend = choose_backend(config, device, os.environ)  # also of one process: it may be a rehearsal for many
    if layout.world_size == 1:
        return Ranks(layout, device, stop=stop)
    timeout = timedelta(seconds=max(config.timeout_seconds, config.start_timeout_seconds) + HANG_REPORT_SECONDS)
    prepare_flight_recorder()
    if layout.launcher == "torchrun":
        dist.init_process_group(backend, timeout=timeout)
    else:
        store = shared_store(meeting_place, layout.rank, layout.world_size, timeout)
        dist.init_process_group(backend, store=store, rank=layout.rank, world_size=layout.world_size, timeout=timeout)
    ranks = Ranks(layout, device, backend, stop=stop)
    if layout.launcher == "slurm":
        ranks.barrier()  # nccl's ranks may get here before all have met
        if ranks.is_main:
            forget_meeting(meeting_place)
    return ranks
