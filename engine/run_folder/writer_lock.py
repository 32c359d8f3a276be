"""One writer a folder: a file that names it, made with O_EXCL, which NFS and Lustre honour where file locks fail."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import UserError
from engine.files import read_json, write_atomic
from engine.run_folder.paths import RunDir
from engine.run_folder.status import LOST_AFTER, read_status

log = logging.getLogger(__name__)

_GUARD_LIFETIME = 60.0
"""Seconds after which somebody who was replacing a dead writer's lock must have died in doing so."""


@dataclass(frozen=True)
class Writer:
    """A process, so described that no later one can be taken for it."""

    host: str
    pid: int
    born: str
    """Boot of the host and clock tick at which the process began, as pids are used again."""
    job: str
    """Slurm job and how often it was restarted (``812.0``); empty outside Slurm."""
    since: float
    """When it began to write here, in seconds since 1970."""

    @staticmethod
    def this_process() -> Writer:
        """Describes this process."""
        job = os.environ.get("SLURM_JOB_ID", "")
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        return Writer(
            socket.gethostname(), os.getpid(), _birth(os.getpid()), f"{job}.{restarts}" if job else "", time.time()
        )

    def has_ended(self) -> bool | None:
        """Returns whether the process is gone; None if that cannot be seen from here."""
        here = Writer.this_process()
        if self.job and self.job != here.job and self.job.split(".")[0] == here.job.split(".")[0]:
            return True  # Slurm ended the job before it restarted it as this one
        if self.host != here.host:
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return _birth(self.pid) != self.born


class RunLock:
    """The right to write in a run's folder, held from construction to :meth:`release`.

    A writer that died on this host, or was ended by Slurm, is succeeded at once; one on another host after it has given
    no sign of life for three minutes.
    """

    def __init__(self, run_dir: RunDir, patience: float = 20.0, poll: float = 0.5) -> None:
        """Waits up to ``patience`` seconds for a writer on this host to end, and for one on another host until it
        either shows that it lives or has been silent for long enough.

        Raises:
            UserError: another process writes here, whose host and pid are named; or this one may not.
        """
        self._run_dir, self._path = run_dir, run_dir.lock
        self._writer = Writer.this_process()
        deadline = time.monotonic() + patience
        first_sign: float | None = None
        announced = False
        while not self._create():
            other = _read(self._path)
            if other is None and not self._path.exists():
                continue  # released this moment
            if other is None:  # made this moment and not written yet, or never
                ended, sign = None, _modified(self._path)
            else:
                ended, sign = other.has_ended(), self._last_sign(other)
            first_sign = sign if first_sign is None else first_sign
            silent = ended is None and time.time() - sign > LOST_AFTER
            if (ended or silent) and self._succeed(other):
                break
            if not announced and not ended and not silent:
                log.info("waiting: %s", _occupied(run_dir, other))
                announced = True
            seen_alive = sign > first_sign if ended is None else time.monotonic() > deadline
            if not ended and not silent and seen_alive:
                raise UserError(f"{_occupied(run_dir, other)}; wait until it ends, or stop it first")
            time.sleep(poll)

    def release(self) -> None:
        """Lets others write here; does nothing if they already do."""
        if _read(self._path) == self._writer:
            self._path.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except OSError as error:
            raise UserError(f"{self._run_dir.path} cannot be written: {error.strerror}") from None
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self._writer)))
            file.flush()
            os.fsync(file.fileno())
        return True

    def _succeed(self, other: Writer | None) -> bool:
        """Puts this process in the place of ``other``. Of several that try, one at a time gets to look and replace."""
        guard = self._path.with_name(f"{self._path.name}.next")
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            if time.time() - _modified(guard) > _GUARD_LIFETIME:
                guard.unlink(missing_ok=True)
            return False
        try:
            if not self._path.exists() or _read(self._path) != other:
                return False
            write_atomic(self._path, json.dumps(asdict(self._writer)))
            return True
        finally:
            guard.unlink(missing_ok=True)

    def _last_sign(self, writer: Writer) -> float:
        status = read_status(self._run_dir.status)
        return max(writer.since, status["updated"] if status else 0.0)


def live_writer(run_dir: RunDir) -> Writer | None:
    """Returns the process of this host that writes in a run's folder; None if there is none, or it cannot be seen."""
    writer = _read(run_dir.lock)
    return writer if writer is not None and writer.has_ended() is False else None


def _occupied(run_dir: RunDir, other: Writer | None) -> str:
    who = "another process" if other is None else f"process {other.pid} on host {other.host}"
    since = "" if other is None else time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(other.since))
    job = f" (Slurm job {other.job.split('.')[0]})" if other is not None and other.job else ""
    return f"{run_dir.path}: {who}{job} has been writing here{since}"


def _read(path: Path) -> Writer | None:
    """Returns the writer that a lock file names; None if there is none, or none yet."""
    return read_json(path, lambda content: Writer(**content))


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _birth(pid: int) -> str:
    """Returns when a process began, as Linux tells it; ``ended`` for one not collected yet, empty on other systems."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "ended" if after_name[0] in "ZX" else f"{boot}/{after_name[19]}"
    except OSError:
        return ""
