"""The machine that a check runs on: whether it is that of the run, its devices and its memory."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from engine.config.run import RunConfig
from engine.errors import UserError
from engine.task.preflight import Checked, refusals
from tools.submit.resources import Resources


def on_login_node() -> bool:
    """Tells whether jobs are submitted here, and this is none."""
    return shutil.which("sbatch") is not None and "SLURM_JOB_ID" not in os.environ


def check_devices(config: RunConfig, login_node: bool) -> Checked:
    """Looks for the device that is asked for. What a ``login_node`` lacks is a warning, else an error."""
    from engine.distributed.connect import choose_backend, choose_device
    from engine.distributed.layout import Layout
    from engine.model.wrap import check_sync_batchnorm

    wanted, lines = config.distributed, list[str]()

    def look() -> None:
        device = choose_device(wanted, Layout())
        check_sync_batchnorm(wanted, device)
        lines.append(f"{describe(device)}; backend {choose_backend(wanted, device, os.environ)}")

    lacking = refusals(look)
    if login_node:
        return Checked(lines, warnings=[f"on this machine: {line}" for line in lacking])
    return Checked(lines, errors=[f"{line}; --login-node if the run will be on another machine" for line in lacking])


def describe(device: object) -> str:
    """Says what a device is: a GPU's name, memory and driver; or the CPU's cores."""
    import torch

    assert isinstance(device, torch.device)
    if device.type != "cuda":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return f"CPU, {cores} cores; torch {torch.__version__}"
    properties = torch.cuda.get_device_properties(device)
    driver = getattr(torch._C, "_cuda_getDriverVersion", lambda: 0)()
    told = f", driver for CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else ""
    count = torch.cuda.device_count()
    return (
        f"{count} x {properties.name}, {properties.total_memory / 1e9:.0f} GB; torch {torch.__version__} for CUDA "
        f"{torch.version.cuda}{told}"
    )


def asked_bytes(resources: Resources) -> float:
    """Returns what ``--mem`` asks for on a node; 0, as Slurm has it, for all that there is. Raises a UserError."""
    return 0.0 if resources.mem is None else parse_bytes(resources.mem)


def node_bytes(environment: Mapping[str, str], root: Path = Path("/")) -> float:
    """Returns the memory that this machine, its control groups and the job that this runs in leave; 0 if unknown."""
    limits = [float(environment.get("SLURM_MEM_PER_NODE") or 0) * 2**20]
    groups = (root / "proc/self/cgroup").read_text().splitlines() if (root / "proc/self/cgroup").is_file() else []
    for _, kinds, place in (line.split(":", 2) for line in groups):
        first, name = ("", "memory.max") if not kinds else ("memory", "memory.limit_in_bytes")
        own = root / "sys/fs/cgroup" / first / place.strip("/")
        limits += [_number(folder / name) for folder in (own, *own.parents) if not kinds or kinds == "memory"]
    limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min((limit for limit in limits if limit > 0), default=0.0)


def parse_bytes(text: str) -> float:
    """Parses memory as sbatch does: ``64G``, ``500M``, ``2000`` (megabytes).

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.strip().upper())
    if not found:
        raise UserError(f"--mem: '{text}' is no memory; write 64G")
    return float(found[1]) * 1024 ** "KMGT".index(found[2] or "M") * 1024


def _number(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # "max"
        return 0.0
