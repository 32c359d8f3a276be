"""FAILED.json: which rank failed where, when and why; written by whoever knows, and kept after it was overcome."""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.files import create_file, json_text, read_json, sync_folder, warning_of_a_bad_disk, write_json
from engine.run_folder.metrics import read_metrics
from engine.run_folder.paths import RunDir
from engine.run_folder.status import read_status

log = logging.getLogger(__name__)

_PATIENCE = 1.0


@dataclass(frozen=True)
class Failure:
    """The end of a run that did not come as it should."""

    rank: int | None
    """Whose fault it is; None if nobody's or unknown."""
    host: str
    step: int
    reason: str
    """One line for people, with rank, host and step."""
    exception: str = ""
    """Name of its type."""
    traceback: str = ""
    """Or the stacks of all threads of the rank."""
    exit_code: int = 1
    start: str = ""
    """Name of the start that failed, the same on all of its ranks; empty if unknown."""
    message: str = ""
    """What the exception says."""
    step_known: bool = True
    """Whether ``step`` is where it happened, give or take one; not where a start has told nothing of its end."""
    retry: bool = False
    """Whether the same start may well succeed: a rank that vanished, a hang, an error of NCCL or of the hardware."""
    time: float = field(default_factory=time.time)

    @staticmethod
    def from_json(content: dict[str, Any]) -> Failure:
        """Reads what FAILED.json holds of a failure; what else is there is left out.

        Raises:
            TypeError: it lacks something.
        """
        known = {each.name for each in fields(Failure)}
        return Failure(**{key: value for key, value in content.items() if key in known})


def read_failure(path: Path) -> Failure | None:
    """Reads a FAILED.json; None if there is none, or none that can be read."""
    return read_json(path, Failure.from_json)


def write_failure(path: Path, failure: Failure) -> bool:
    """Writes FAILED.json, durably; of several ranks of one start that try, the first succeeds.

    The file of an earlier start, whose step was not reached again, becomes FAILED_1.json or the next that is free.

    Returns:
        Whether it was written. It is not if this start has one already, nor, with a warning, to a disk that cannot be.
    """
    return put(path, asdict(failure), failure.start)


def archive_failure(path: Path, step: int) -> None:
    """Renames FAILED.json to FAILED_1.json or the next that is free, if the run, now at ``step``, has passed it."""
    content, failure = read_json(path), read_failure(path)
    if failure is None or step <= failure.step:
        return
    with warning_of_a_bad_disk(path):
        _keep(path, content)
        path.unlink()
        sync_folder(path.parent)


def record_silent_end(folder: RunDir) -> Failure | None:
    """Writes FAILED.json for a last start that ended without a word; for the start after it, before it writes status.

    Returns:
        What was written; None if the last start told its end, or there was none.
    """
    status = read_status(folder.status)
    if status is None or status.get("state") not in ("running", "lost"):
        return None
    environment = read_json(folder.environment) or {}
    last = [environment, *environment.get("restarts", [])][-1]
    told = read_failure(folder.failed)
    if told is not None and told.time >= last.get("started", 0.0):
        return None
    step = _reached(folder, int(status.get("step", 0)))
    hosts = [str(host) for host in last.get("hosts", [])]
    reason = (
        f"ended without a word, last heard of at step {step}: killed (SIGKILL), out of memory, or the node went down"
    )
    reason = f"{reason} ({', '.join(hosts)})" if hosts else reason
    failure = Failure(None, ", ".join(hosts), step, reason, step_known=False, retry=True)
    return failure if put(folder.failed, asdict(failure)) else None


def _reached(folder: RunDir, step: int) -> int:
    """Returns the furthest step of which a run has left a trace; status.json's ``step`` may be half a minute old."""
    saved = [int(path.stem.removeprefix("step_")) for path in folder.checkpoints.glob("step_*.pt")]
    try:
        recorded = [int(record["step"]) for record in read_metrics(folder.metrics)]
    except UserError:
        recorded = []
    return max([step, *saved, *recorded])


def put(path: Path, content: dict[str, Any], start: str = "") -> bool:
    """Makes FAILED.json of ``content``, after keeping an older one under the next free name.

    Returns:
        Whether it did. It does not if the older one is of ``start``, nor if the disk cannot be written.
    """
    with warning_of_a_bad_disk(path):
        if not create_file(path, json_text(content)):
            old = read_json(path)
            if old is not None and start and old.get("start") == start:
                return False
            if old is not None and not _keep(path, old):
                time.sleep(_PATIENCE)  # another rank is about to write its own here, unless it died before it could
                if read_json(path) != old:
                    return False
            write_json(path, content)
        sync_folder(path.parent)
        return True
    return False


def _keep(path: Path, content: dict[str, Any]) -> bool:
    """Copies what FAILED.json holds to the next free name; False if it was kept already."""
    for number in itertools.count(1):
        kept = path.with_name(f"{path.stem}_{number}{path.suffix}")
        if create_file(kept, json_text(content)):
            return True
        if read_json(kept) == content:
            break
    return False
