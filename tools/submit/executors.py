"""Jobs handed to submitit: to Slurm, to this machine, or to this very process."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from submitit import DebugExecutor, LocalExecutor, SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from engine.errors import UserError
from tools.submit.job import Job
from tools.submit.resources import SIGNAL_SECONDS, Resources, slurm_parameters

CLUSTERS = ("slurm", "local", "debug")
_FOREVER_MINUTES = 366 * 24 * 60
_OF_THIS_JOB = ("SLURM_", "SLURMD_", "SRUN_", "PMI", "SUBMITIT_", "SBATCH_")
_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_RESERVATION")


@dataclass(frozen=True)
class Queued:
    """A job that was taken."""

    job: str
    log: Path
    """What its first rank prints."""


def queue_slurm(jobs: Sequence[Job], resources: Resources, name: str, folder: Path, code: Path) -> list[Queued]:
    """Queues one job, or several as one array. ``folder`` is for submitit's files, ``code`` the copy that runs.

    Raises:
        UserError: there is no Slurm, or it refuses; with its own words. Nothing is queued then.
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError("--cluster slurm: there is no sbatch here; submit on a login node, or use --cluster local")
    with _outside_of_a_job(), contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it also raises
        executor = SlurmExecutor(folder, python=_launcher(code))
        executor.update_parameters(**slurm_parameters(resources, name))
        try:
            queued = executor.submit_array(jobs)
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"Slurm does not take the job: {error}") from None
    return [Queued(job.job_id, _log(folder, job.job_id)) for job in queued]


def start_local(jobs: Sequence[Job], resources: Resources, folder: Path, code: Path) -> list[Queued]:
    """Starts all jobs at once on this machine; they outlive this process.

    Raises:
        UserError: more than this machine is asked for.
    """
    if resources.nodes != 1:
        raise UserError(f"--nodes {resources.nodes}: --cluster local has one; use --tasks-per-node for more processes")
    queued = []
    for number, job in enumerate(jobs):
        place = folder / str(number)  # process numbers are used again
        executor = LocalExecutor(place, python=_launcher(code))
        executor.update_parameters(
            tasks_per_node=resources.tasks,
            gpus_per_node=resources.gpus_per_node,
            timeout_min=resources.minutes or _FOREVER_MINUTES,
            signal_delay_s=SIGNAL_SECONDS,
            stderr_to_stdout=True,
        )
        with _outside_of_a_job():
            taken = executor.submit(job)
        queued.append(Queued(taken.job_id, _log(place, taken.job_id)))
    return queued


def run_here(job: Job, folder: Path) -> None:
    """Runs a job in this process, which then exits with its code; an error opens the debugger."""
    DebugExecutor(folder).submit(job).results()


def _launcher(code: Path) -> str:
    return shlex.join([sys.executable, str(code / "tools" / "submit" / "launcher.py")])


def _log(folder: Path, job: str) -> Path:
    return folder / f"{job}_0_log.out"


@contextlib.contextmanager
def _outside_of_a_job() -> Iterator[None]:
    """Hides the variables of the job that this process may run in: they would become the new one's."""
    hidden = {name: text for name, text in os.environ.items() if name.startswith(_OF_THIS_JOB) and name not in _KEPT}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ |= hidden
