"""``--status`` and ``--retry``: how submitted runs are doing, without Slurm's accounting."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from engine.failure import read_failure
from engine.run_dir import RunDir, experiment_number
from engine.status import read_status
from tools.submit.folders import Note, read_note

OVER = ("failed", "interrupted", "lost")
"""States of runs that have stopped before they were finished."""


@dataclass(frozen=True)
class View:
    """How a run is doing."""

    folder: RunDir
    state: str
    """waiting, starting, running, finished, failed, interrupted, lost; unknown without a status.json."""
    step: int
    epoch: float
    why: str
    """What it waits for, or what stopped it."""
    note: Note | None


def find_runs(places: Sequence[Path]) -> list[RunDir]:
    """The experiment folders among and directly below ``places``, by number.

    Raises:
        UserError: a place is neither an experiment nor holds any.
    """
    found: dict[Path, RunDir] = {}
    for place in places:
        place = place.absolute()
        below = [path for path in place.iterdir() if experiment_number(path) is not None] if place.is_dir() else []
        chosen = [place] if experiment_number(place) is not None and place.is_dir() else below
        if not chosen:
            raise UserError(f"{place}: no experiments there; name the folder that holds experiment_0001, ...")
        found |= {path: RunDir(path) for path in chosen}
    return sorted(found.values(), key=lambda run: (run.path.parent, experiment_number(run.path) or 0))


def slurm_queue() -> dict[str, tuple[str, str]] | None:
    """State and reason of each job and array task of this user that waits or runs; None if Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2]
    return {job.strip(): (state, reason) for job, state, reason in rows}


def look(run: RunDir, queued: Mapping[str, tuple[str, str]] | None) -> View:
    """What status.json, FAILED.json and Slurm's queue (``queued``) say of a run together."""
    status, note = read_status(run.status) or {}, read_note(run)
    written, where = status.get("state", "unknown"), _where(run, note, queued)
    failure = read_failure(run.failed)
    state, why = written, ""
    if written in ("finished", "unknown"):
        pass
    elif where is not None and where[0] == "PENDING":
        state, why = "waiting", where[1] if where[1] != "None" else ""
    elif where is not None and where[0] == "GONE":
        if written in ("queued", "running", "lost"):
            began = "it ended without a word" if written != "queued" else "it ended before it began"
            state, why = "lost", f"{began}; see {note.log if note else run.logs}"
    elif written == "queued":
        state = "starting" if where is not None else "waiting"
    elif written == "interrupted" and where is not None:
        state, why = "starting", "goes on soon"
    elif written == "lost":
        why = "no sign of life for three minutes"
    if state == "failed":
        why = failure.reason if failure is not None else "no FAILED.json says why"
    return View(run, state, int(status.get("step", 0)), float(status.get("epoch", 0.0)), why, note)


def _where(run: RunDir, note: Note | None, queued: Mapping[str, tuple[str, str]] | None) -> tuple[str, str] | None:
    """Slurm's state of a run's job and its reason, RUNNING or GONE for a local one; None if nobody knows."""
    if note is None:
        return None
    if note.cluster == "slurm":
        return None if queued is None else queued.get(note.job, ("GONE", ""))
    if note.host != socket.gethostname():
        return None
    try:
        os.kill(int(note.job), 0)
    except ProcessLookupError:
        return "GONE", ""
    except PermissionError:
        pass
    return "RUNNING", ""


def table(views: Sequence[View]) -> str:
    """One line a run, and how many there are of each state."""
    rows = [("experiment", "state", "step", "epoch", "job", "what", "why")]
    for view in views:
        what = " ".join(view.note.swept) if view.note else ""
        job = view.note.job if view.note else ""
        rows.append((view.folder.name, view.state, str(view.step), f"{view.epoch:.4g}", job, what, view.why))
    used = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in used}
    lines = ["  ".join(row[column].ljust(widths[column]) for column in used).rstrip() for row in rows]
    states = [view.state for view in views]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return "\n".join([*lines, counts])
