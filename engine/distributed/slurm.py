"""What Slurm tells a job about itself, and what a job leaves for its restart. Imports no torch.

A requeued job finds its folder by a note below ``experiment.root``: the first start writes it, named after the job (or
array task) and after what was asked for, as one job may train several runs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.files import read_json, write_atomic
from engine.run_folder.paths import RunDir

log = logging.getLogger(__name__)

FOLDER_NOTE = "SWIN_FOLDER_NOTE"
"""Names a file in which slurm/launch.sh wants to be told the experiment's folder."""
_TIME_LEFT = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)$")


def job_name(environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns ``812``, ``811_3`` for an array task, as Slurm's commands take it; None outside Slurm."""
    if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID") or None


def restart_count(environment: Mapping[str, str] = os.environ) -> int:
    """Returns how often Slurm has restarted this job; 0 at its first start and outside Slurm."""
    return int(environment.get("SLURM_RESTART_COUNT") or 0)


def expand_counts(text: str) -> list[int]:
    """Expands Slurm's task counts a node, ``"2(x3),1"``, to ``[2, 2, 2, 1]``."""
    counts: list[int] = []
    for part in filter(None, text.split(",")):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or 1)
    return counts


def note_path(root: Path, request: Sequence[str], environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns where a job keeps the name of its folder, for restarts that ask for the same; None outside Slurm."""
    job = job_name(environment)
    if job is None:
        return None
    digest = hashlib.sha256("\0".join(request).encode(errors="surrogateescape")).hexdigest()[:8]
    return root / ".slurm" / f"{environment.get('SLURM_CLUSTER_NAME', 'cluster')}.{job}.{digest}"


def note_folder(
    folder: RunDir, root: Path, request: Sequence[str], environment: Mapping[str, str] = os.environ
) -> None:
    """Notes that this job writes in ``folder``, for its restarts and for the script that launched it."""
    note = note_path(root, request, environment)
    if note is not None:
        note.parent.mkdir(exist_ok=True)
        write_atomic(note, f"{folder.path}\n")
    if environment.get(FOLDER_NOTE):
        Path(environment[FOLDER_NOTE]).write_text(str(folder.path), encoding="utf-8")


def noted_folder(root: Path, request: Sequence[str], environment: Mapping[str, str] = os.environ) -> RunDir | None:
    """Returns the folder that an earlier start of this job wrote in; None if there is none."""
    note = note_path(root, request, environment)
    if note is None or not note.is_file():
        return None
    path = Path(note.read_text(encoding="utf-8").strip())
    if not path.is_dir():
        log.warning("the folder of this job's earlier start, %s, is gone: starting a new one", path)
        return None
    return RunDir(path)


def seconds_left(text: str) -> float | None:
    """Parses ``1-02:03:04``, ``03:04`` and the like, squeue's %L, to seconds; None for words such as UNLIMITED."""
    match = _TIME_LEFT.match(text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def job_end(environment: Mapping[str, str] = os.environ) -> float | None:
    """Returns when this job's time is up, in seconds since 1970; None if it is not known, or there is no end.

    Newer Slurms tell every job; an older one is asked, for ten seconds at most.
    """
    job, told = job_name(environment), environment.get("SLURM_JOB_END_TIME", "")
    if job is None:
        return None
    if told.isdigit():
        return float(told)
    left = seconds_left(_squeue(job, "%L"))
    return None if left is None else time.time() + left


def job_of(start: Mapping[str, Any]) -> str | None:
    """Returns the job of a start as environment.json has it, named as by :func:`job_name`."""
    slurm = start.get("slurm", {})
    names = {"SLURM_JOB_ID": "job_id", "SLURM_ARRAY_JOB_ID": "array_job_id", "SLURM_ARRAY_TASK_ID": "array_task_id"}
    return job_name({name: str(slurm[key]) for name, key in names.items() if key in slurm})


def last_job(folder: RunDir) -> str | None:
    """Returns the job of a run's last start; None if that was not made by Slurm."""
    record = read_json(folder.environment) or {}
    return job_of([record, *record.get("restarts", [])][-1])


def waiting_job(folder: RunDir, environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns another job that waits to go on in a folder; None if there is none, or Slurm does not tell."""
    job = last_job(folder)
    if job is None or job == job_name(environment):
        return None
    return job if _squeue(job, "%T").strip() == "PENDING" else None


def _squeue(job: str, field: str) -> str:
    """Asks Slurm about a job that waits or runs; empty if it says nothing within ten seconds."""
    command = ["squeue", "--noheader", f"--jobs={job}", f"--format={field}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
