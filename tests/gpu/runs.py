"""Whole trainings, started as a user's, in which a rank may go wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.run_folder.paths import RunDir
from tests.classification.small import write_config
from tests.distributed import Ended, launch
from tests.gpu.findings import Findings

JOB = "2000000001"
"""No job of a Slurm that may be here: ranks are started as tasks to which srun shows one card each, which is the same
one. torchrun's ranks would rightly be refused a card that they have to share."""
NO_SLURM = {"SLURM_CONF": "/nonexistent"}
"""Keeps Slurm's commands from reaching a cluster that this machine may belong to."""


def configure(folder: Path, findings: Findings, **sections: dict[str, Any]) -> Path:
    """A configuration file of 20 deterministic steps of a tiny Swin on digits."""
    training = {"steps": 20, "global_batch_size": 16, "precision": "fp32", "deterministic": True, "ema": {}}
    distributed = {"device": findings.device, "backend": "gloo", "timeout_seconds": 60.0}
    base = {"training": training, "checkpoint": {"every_steps": 4}, "logging": {"every_steps": 1, "tensorboard": False}}
    merged = {name: {**base.get(name, {}), **sections.get(name, {})} for name in {**base, **sections}}
    merged["distributed"] = {**distributed, **sections.get("distributed", {})}
    return write_config(folder, **merged)


def run(config: Path, world_size: int, fault: str, *arguments: str, timeout: float = 100.0) -> list[Ended]:
    """Trains on so many ranks of one card, with a fault of :mod:`tests.gpu.faulty` or none."""
    command: Sequence[str] = [sys.executable, "-m", "tests.gpu.faulty", "--config", str(config), *arguments]
    job = JOB if world_size > 1 else None
    variables = {"FAULT": fault, **NO_SLURM}
    return launch(world_size, command, env=variables, slurm_job=job, timeout=timeout, new_interpreter=True)


def experiment(config: Path, number: int = 1) -> RunDir:
    """The folder of the run that was begun as the ``number``-th."""
    return RunDir(config.parent / "experiments" / f"experiment_{number:04d}")


def failure(config: Path) -> dict[str, Any]:
    """What FAILED.json says; nothing if there is none."""
    file = experiment(config).failed
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
