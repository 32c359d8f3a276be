"""Jobs handed to submitit: to Slurm, or to this machine."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from submitit import LocalExecutor, SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from engine.errors import UserError
from tools.submit.job import LOCAL_GPUS, Job
from tools.submit.local_devices import describe_devices, divide_gpus
from tools.submit.resources import (
    SIGNAL_SECONDS,
    Resources,
    describe_request,
    environment_place,
    launcher,
    slurm_parameters,
)

_FOREVER_MINUTES = 366 * 24 * 60
_OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "PMI", "SUBMITIT_")


@dataclass(frozen=True)
class Queued:
    """A job that was taken."""

    job: str
    log: Path
    """What its first rank prints."""
    devices: str
    """What it trains on."""


def queue_slurm(jobs: Sequence[Job], resources: Resources, name: str, folder: Path, code: Path) -> list[Queued]:
    """Queues one job, or several as one array. ``folder`` is for submitit's files, ``code`` the copy that runs.

    Raises:
        UserError: there is no Slurm, or it refuses; with its own words. Nothing is queued then.
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError("--cluster slurm: there is no sbatch here; submit on a login node, or use --cluster local")
    with _outside_of_a_job(), contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it also raises
        executor = SlurmExecutor(folder, python=launcher(code))
        place = environment_place(os.environ)
        executor.update_parameters(**slurm_parameters(resources, name, folder, code, place))
        try:
            queued = executor.submit_array(jobs)
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"Slurm does not take the job: {error}") from None
    devices = describe_request(resources)
    return [Queued(job.job_id, job.paths.stdout, devices) for job in queued]


def start_local(jobs: Sequence[Job], resources: Resources, folder: Path, code: Path, first: int = 0) -> list[Queued]:
    """Starts all jobs at once on this machine, each in a session of its own, so that it outlives this process, its
    terminal and Ctrl-C there. The ``first`` jobs, which run already, have GPUs before theirs.

    Raises:
        UserError: more than this machine is asked for.
    """
    if resources.nodes != 1:
        raise UserError(f"--nodes {resources.nodes}: --cluster local has one; use --tasks-per-node for more processes")
    queued = []
    divided = divide_gpus(resources, len(jobs), first)
    with _outside_of_a_job():
        for number, (job, gpus) in enumerate(zip(jobs, divided, strict=True)):
            place = folder / str(number)  # process numbers are used again
            with ProcessPoolExecutor(1, get_context("fork"), initializer=os.setsid) as apart:
                started = apart.submit(_start_local, job, resources, gpus, place, launcher(code))
            queued.append(started.result())
    return queued


def _start_local(job: Job, resources: Resources, gpus: Sequence[str], place: Path, python: str) -> Queued:
    """Starts a job with the session of this process and without its streams."""
    executor = LocalExecutor(place, python=python)
    executor.update_parameters(
        tasks_per_node=resources.tasks,
        timeout_min=resources.minutes or _FOREVER_MINUTES,
        signal_delay_s=SIGNAL_SECONDS,
        stderr_to_stdout=True,
    )
    os.environ[LOCAL_GPUS] = ",".join(gpus)
    place.mkdir(parents=True, exist_ok=True)
    with open(os.devnull, "rb") as nothing, (place / "controller.out").open("ab") as file:
        for number, stream in enumerate((nothing, file, file)):
            os.dup2(stream.fileno(), number)
    started = executor.submit(job)
    return Queued(started.job_id, started.paths.stdout, describe_devices(gpus, resources.tasks))


@contextlib.contextmanager
def _outside_of_a_job() -> Iterator[None]:
    """Hides the variables of the job that this process may run in: they would become the new one's."""
    inside = "SLURM_JOB_ID" in os.environ
    names = [name for name in os.environ if inside and name.startswith(_OF_A_JOB) and name != "SLURM_CONF"]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ |= hidden
