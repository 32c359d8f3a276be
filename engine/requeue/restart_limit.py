"""When a job that Slurm restarts again and again should not be: it gets nowhere."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from engine.distributed.slurm import job_name, job_of, restart_count
from engine.files import read_json
from engine.run_folder.failure import Failure, read_failure
from engine.run_folder.paths import RunDir

STARTS_WITHOUT_A_STEP = 3
CRASHES_AT_A_STEP = 2


def restart_limit_reason(folder: RunDir, step: int, environment: Mapping[str, str] = os.environ) -> str | None:
    """Says why this start, which Slurm made by itself, should not go on at ``step``; None if it may.

    To be asked before this start is recorded in environment.json. A start that a person made is never refused.
    """
    job = job_name(environment)
    if job is None or restart_count(environment) == 0:
        return None
    record = read_json(folder.environment) or {}
    starts = [start for start in (record, *record.get("restarts", [])) if job_of(start) == job]
    since = min((start["started"] for start in starts), default=0.0)
    paths = [folder.failed, *folder.failed.parent.glob(f"{folder.failed.stem}_*{folder.failed.suffix}")]
    failures = {failure for failure in map(read_failure, paths) if failure is not None and failure.time >= since}
    return crashes(failures, step) or idle_starts(starts, restart_count(environment), step)


def crashes(failures: Collection[Failure], step: int) -> str | None:
    """Says that several starts crashed at one step that is still to come; None if they did not.

    Who survives a rank's death says where it stands itself, which may be the step before or after. What a start left
    that ended without a word may be many steps old: two of those at one step need not have ended at one, and are left
    to :func:`idle_starts`.
    """
    known = [failure for failure in failures if failure.step_known]
    for failure in sorted(known, key=lambda failure: failure.time, reverse=True):
        same = [other for other in known if abs(other.step - failure.step) <= 1]
        if failure.step >= step and len(same) >= CRASHES_AT_A_STEP:
            return f"{len(same)} starts have failed at step {failure.step}, the last one: {failure.reason}"
    return None


def idle_starts(starts: Sequence[Mapping[str, Any]], restarts: int, step: int) -> str | None:
    """Says that the last starts, of which this is number ``restarts`` counted from 0, all began where it begins.

    One that ended before it was recorded counts too: those that were, know their number.
    """
    same = list(itertools.takewhile(lambda start: start.get("step", 0) == step, reversed(starts)))
    earlier = starts[: len(starts) - len(same)]
    # If all that were recorded began elsewhere, the last of them got here.
    first = _number(same[-1]) if same else _number(earlier[-1]) + 1 if earlier else 0
    idle = restarts - first
    return f"{idle} starts in a row have saved no new step" if idle >= STARTS_WITHOUT_A_STEP else None


def _number(start: Mapping[str, Any]) -> int:
    return int(start.get("slurm", {}).get("restart_count", 0))
