"""The machine that a check runs on: whether it is that of the run, and its devices."""

from __future__ import annotations

import os
import shutil

from engine.config.run import RunConfig
from engine.task.preflight import Checked, refusals


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
