"""What a queued job does: it goes on with a run in its claimed folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.commands.arguments import TrainArguments
from engine.commands.entry import exit_code, wait_politely
from engine.errors import EXIT_INTERRUPTED
from engine.process.descriptors import raise_descriptor_limit
from engine.process.signals import StopRequest
from engine.process.start_guard import StartGuard
from engine.run_folder.failure import Failure, write_failure
from engine.run_folder.paths import RunDir
from engine.run_folder.status import read_status
from engine.task.spec import find_spec
from tools.submit.folders import write_status
from tools.submit.launcher import release

if TYPE_CHECKING:
    from submitit.core.job_environment import JobEnvironment

MEETING_SECONDS = 120.0
"""Longest wait of a local job's ranks for the first one."""
LOCAL_GPUS = "SWIN_LOCAL_GPUS"
"""What CUDA_VISIBLE_DEVICES is to list in a local job, in place of submitit's numbers; may be empty."""
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""What a local job goes on after; one of Slurm's does as slurm/requeue.sh decides."""


@dataclass(frozen=True)
class Job:
    """A run as submitit keeps it: calling this trains, and ends the process with the exit code."""

    task: str
    config: Path
    """config.yaml in the folder that was claimed for the run."""
    directory: Path
    """Where the user submitted it: messages name paths as they are to be typed there."""

    def __call__(self) -> None:
        from submitit import JobEnvironment
        from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

        stop = StopRequest().install()  # instead of submitit's, which save within the handler
        release()
        wait_politely()
        raise_descriptor_limit()
        environment = JobEnvironment()
        _tell_rank(environment)
        guard = StartGuard(stop, launcher=_controller(environment))
        with contextlib.suppress(OSError):  # it may not be there on this node: then paths are absolute
            os.chdir(self.directory)
        if environment.global_rank == 0:
            print(f"code: {Path(__file__).resolve().parents[2]}", flush=True)
        with _meeting(environment):
            code = exit_code(lambda: self._train(stop, guard))
        if environment.global_rank == 0 and code not in (0, EXIT_INTERRUPTED):
            self._note_failure(code)
        sys.exit(LOCAL_REQUEUE_RETURN_CODE if self._goes_on(environment, stop, code) else code)

    def _goes_on(self, environment: JobEnvironment, stop: StopRequest, code: int) -> bool:
        """Returns whether a local job is to be started again, which its first rank asks for."""
        first = environment.name() == "local" and environment.global_rank == 0
        return first and code == EXIT_INTERRUPTED and stop.signal in WARNINGS

    def _train(self, stop: StopRequest, guard: StartGuard) -> int:
        """Trains as ``python -m TASK.train --resume FOLDER`` does."""
        from engine.commands.resume import requested_config

        spec = find_spec(self.task)
        arguments = TrainArguments(None, str(self.config.parent), dry_run=False, overrides=())
        requested_config(spec.schema(), arguments)

        from engine.commands.train import run_training

        return run_training(spec, arguments, stop, guard)

    def _note_failure(self, code: int) -> None:
        """Says so in the folder where the run failed before it could."""
        folder = RunDir(self.config.parent)
        status = read_status(folder.status) or {}
        if status.get("state") == "queued":
            reason = f"ended with code {code} before the first step; its output says why"
            write_failure(
                folder.failed, Failure(0, socket.gethostname(), status.get("step", 0), reason, exit_code=code)
            )
            write_status(folder, "failed")


def _controller(environment: JobEnvironment) -> int | None:
    """Returns the number of the process that started this one of a local job, which submitit names the job by.

    A process of Slurm has srun's variables; one that is debugged was typed by a user.
    """
    return int(environment.job_id) if environment.name() == "local" else None


def _tell_rank(environment: JobEnvironment) -> None:
    """Tells a local job's process, as torchrun would, which of several it is; Slurm's are told by srun."""
    if environment.name() == "local":
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[LOCAL_GPUS]
    if environment.name() == "local" and environment.num_tasks > 1:
        count = str(environment.num_tasks)
        os.environ |= {"RANK": str(environment.global_rank), "WORLD_SIZE": count}
        os.environ |= {"LOCAL_RANK": str(environment.local_rank), "LOCAL_WORLD_SIZE": count}


@contextlib.contextmanager
def _meeting(environment: JobEnvironment) -> Iterator[None]:
    """Tells the ranks of a local job where they meet.

    Rank 0 listens on a port of the system's choice and publishes it beside submitit's files.
    """
    if environment.name() != "local" or environment.num_tasks == 1:
        yield
        return
    from torch.distributed import TCPStore

    note = environment.paths.folder / f"{environment.job_id}_port"
    store = None
    if environment.global_rank == 0:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        aside = note.with_suffix(".part")
        aside.write_text(str(store.port))
        aside.replace(note)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _published(note), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    try:
        yield
    finally:
        if store is not None:
            note.unlink(missing_ok=True)  # the next start has another port


def _published(note: Path) -> str:
    deadline = time.monotonic() + MEETING_SECONDS
    while not note.exists():
        if time.monotonic() > deadline:
            sys.exit(f"error: rank 0 has not written {note} within {MEETING_SECONDS:.0f} s")
        time.sleep(0.05)
    return note.read_text()
