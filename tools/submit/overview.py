"""``--status`` and ``--retry``: how submitted runs are doing, without Slurm's accounting."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.distributed.slurm import last_job
from engine.errors import UserError
from engine.files import usable_path
from engine.run_folder.failure import read_failure
from engine.run_folder.paths import RunDir, experiment_number
from engine.run_folder.status import read_status
from engine.run_folder.writer_lock import live_writer
from tools.submit.folders import Note, read_note

OVER = ("failed", "interrupted", "lost")
"""States of runs that have stopped before they were finished."""


@dataclass(frozen=True)
class View:
    """State of a run."""

    folder: RunDir
    state: str
    """waiting, starting, running, finished, failed, interrupted, lost; unknown without a status.json."""
    step: int
    epoch: float
    why: str
    """What it waits for, or what stopped it."""
    note: Note | None
    """How it was submitted; None if it was not submitted by this tool."""
    job: str
    """Its last job, or process; empty if it had none."""
    alive: bool | None
    """Whether its job waits or runs, or a process of this host writes in its folder; None if nobody knows."""

    @property
    def in_slurm(self) -> bool:
        """Tells whether Slurm may know more of it: it was queued there, and is not known to be finished."""
        local = self.note is not None and self.note.cluster == "local"
        return bool(self.job) and not local and self.state != "finished"


def find_runs(places: Sequence[Path]) -> list[RunDir]:
    """Finds the experiment folders among and directly below ``places``, by number.

    Raises:
        UserError: a place is neither an experiment nor holds any.
    """
    found: dict[Path, RunDir] = {}
    for place in places:
        place = place.absolute()
        below = [path for path in place.iterdir() if experiment_number(path) is not None] if place.is_dir() else []
        own = experiment_number(place) is not None or RunDir(place).config.is_file()  # of any name, as one was renamed
        chosen = [place] if own and place.is_dir() else below
        if not chosen:
            raise UserError(f"{place}: no experiments there; name the folder that holds experiment_0001, ...")
        found |= {path: RunDir(path) for path in chosen}
    return sorted(found.values(), key=lambda run: (run.path.parent, experiment_number(run.path) or 0))


def slurm_queue() -> dict[str, tuple[str, str]] | None:
    """Asks for state and reason of each of this user's jobs and array tasks; None if Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%T|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2]
    return {job.strip(): (state, reason) for job, state, reason in rows}


def look(run: RunDir, queue: Mapping[str, tuple[str, str]] | None) -> View:
    """Says what status.json, FAILED.json, the writer's lock and Slurm's queue (:func:`slurm_queue`) tell of a run."""
    status, note = read_status(run.status) or {}, read_note(run)
    written = str(status.get("state", "unknown"))
    job = note.job if note is not None else last_job(run) or ""
    alive, waits_for = _local_job(note) if note is not None and note.cluster == "local" else _slurm_job(job, queue)
    if note is None and not alive:
        alive = None  # it may be somebody else's, or another cluster's
    state, why = written, ""
    if written == "finished":
        pass
    elif not alive and (writer := live_writer(run)) is not None:
        state, why, alive = "running", f"process {writer.pid} of this machine writes here", True
    elif waits_for is not None:
        state, why = "waiting", waits_for
    elif written == "queued" and alive is not False:
        state, why = ("starting", "") if alive else ("waiting", "or cancelled: nobody here can tell")
    elif written in ("queued", "running") and alive is False:
        state, why = "lost", _silent_end(run, written, note)
    elif written == "interrupted":
        if alive is not None:
            why = "its job ends, or goes on, in a moment" if alive else "its job was ended; --retry queues it again"
    elif written == "lost":
        why = "no sign of life for three minutes" + (f", but job {job} runs" if alive else "")
    elif written == "failed":
        failure = read_failure(run.failed)
        why = failure.reason if failure is not None else "no FAILED.json says why"
    return View(run, state, int(status.get("step", 0)), float(status.get("epoch", 0.0)), why, note, job, alive)


def _silent_end(run: RunDir, written: str, note: Note | None) -> str:
    """Returns why a run stands still whose job is gone without having changed its state."""
    if written == "queued" and note is not None and not Path(note.log).exists():
        return "its job was cancelled before it began"
    end = "ended without a word" if written == "running" else "ended before it began"
    return f"its job {end}; see {usable_path(Path(note.log) if note is not None else run.logs)}"


def _slurm_job(job: str, queue: Mapping[str, tuple[str, str]] | None) -> tuple[bool | None, str | None]:
    """Returns whether a job waits or runs, None if nobody knows; and what it waits for, None if it does not wait."""
    if not job or queue is None:
        return None, None
    state, reason = queue.get(job, ("", ""))
    return bool(state), reason if state == "PENDING" else None


def _local_job(note: Note) -> tuple[bool | None, None]:
    """Returns the same of a process of this machine."""
    if note.host != socket.gethostname():
        return None, None
    try:
        os.kill(int(note.job), 0)
    except ProcessLookupError:
        return False, None
    except PermissionError:
        pass
    return True, None


def table(views: Sequence[View]) -> str:
    """Formats one line a run, and how many there are of each state."""
    rows = [("experiment", "state", "step", "epoch", "job", "what", "why")]
    for view in views:
        what = " ".join(view.note.swept) if view.note else ""
        figures = (view.state, str(view.step), f"{view.epoch:.4g}", view.job)
        rows.append((usable_path(view.folder.path), *figures, what, view.why))
    used = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in used}
    lines = ["  ".join(row[column].ljust(widths[column]) for column in used).rstrip() for row in rows]
    states = [view.state for view in views]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return "\n".join([*lines, counts])
