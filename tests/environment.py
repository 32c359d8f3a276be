"""The environment that tests give the processes they start. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "SLURM_", "TORCHELASTIC_")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without any launcher's variables, with one thread a process, and with ``extra``."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHER_VARIABLES)}
    path = os.pathsep.join(filter(None, [str(ROOT), own.get("PYTHONPATH", "")]))
    return {**own, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **(extra or {})}
