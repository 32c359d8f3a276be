"""environment.json: what a run was started with, where, and from which state of the code."""

from __future__ import annotations

import os
import platform
import shlex
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from engine.files import read_json, write_json
from engine.git_state import describe_code

_PACKAGES = (
    "torchvision",
    "timm",
    "numpy",
    "pillow",
    "pydantic",
    "scikit-learn",
    "pycocotools",
    "faster-coco-eval",
    "tensorboard",
    "submitit",
)
_SLURM = {
    "job_id": "SLURM_JOB_ID",
    "array_job_id": "SLURM_ARRAY_JOB_ID",
    "array_task_id": "SLURM_ARRAY_TASK_ID",
    "restart_count": "SLURM_RESTART_COUNT",
    "nodelist": "SLURM_JOB_NODELIST",
    "partition": "SLURM_JOB_PARTITION",
    "cluster": "SLURM_CLUSTER_NAME",
}


def describe_rank(rank: int, device: torch.device) -> dict[str, Any]:
    """Describes where a rank runs; each rank describes itself."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        name = f"{platform.machine()} CPU, {cores} cores, {torch.get_num_threads()} threads"
    place = {"rank": rank, "host": socket.gethostname(), "pid": os.getpid()}
    if "SLURMD_NODENAME" in os.environ:
        place["node"] = os.environ["SLURMD_NODENAME"]  # as Slurm's commands take it
    return {**place, "device": str(device), "device_name": name}


def describe_start(ranks: Sequence[Mapping[str, Any]], code: Path | None = None) -> dict[str, Any]:
    """Describes this start; ``ranks``: :func:`describe_rank` of each, ``code``: the suite's clone."""
    return {
        "started": round(time.time(), 3),
        "command": shlex.join(sys.orig_argv),
        "directory": os.getcwd(),
        **describe_code(code or Path(__file__).resolve().parents[2]),
        "packages": {"torch": str(torch.__version__)}  # with its build, unlike the package's
        | {name: version for name in _PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda,
        "hosts": list(dict.fromkeys(rank["host"] for rank in ranks)),
        "devices": [dict(rank) for rank in ranks],
        "slurm": {key: os.environ[name] for key, name in _SLURM.items() if name in os.environ},
    }


def record_start(path: Path, start: Mapping[str, Any]) -> dict[str, Any]:
    """Writes ``start`` (:func:`describe_start`) to environment.json, or adds it to the restarts that it has.

    Returns:
        All that the file holds.
    """
    first = read_json(path)
    if first is None:
        first = {**start, "restarts": []}
    else:
        first["restarts"] = [*first.get("restarts", []), dict(start)]
    write_json(path, first)
    return first


def record_end(path: Path, state: str) -> None:
    """Adds to environment.json when the last start has ended, and in which state; if there is one."""
    first = read_json(path)
    if first is not None:
        last = [first, *first.get("restarts", [])][-1]
        last |= {"ended": round(time.time(), 3), "state": state}
        write_json(path, first)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
