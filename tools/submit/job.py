"""What a queued job does: it goes on with a run in its claimed folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
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
        local = take_local_gpus(environment)
        # The controller, which submitit names a local job by; srun's variables are known, and a user may debug.
        guard = StartGuard(stop, launcher=int(environment.job_id) if local else None)
        with contextlib.suppress(OSError):  # it may not be there on this node: then paths are absolute
            os.chdir(self.directory)
        if environment.global_rank == 0:
            print(f"code: {Path(__file__).resolve().parents[2]}", flush=True)
        code = exit_code(lambda: self._train(stop, guard))
        if environment.global_rank == 0 and code not in (0, EXIT_INTERRUPTED):
            self._note_failure(code)
        if local and environment.global_rank == 0 and code == EXIT_INTERRUPTED and stop.signal in WARNINGS:
            code = LOCAL_REQUEUE_RETURN_CODE  # the controller starts all ranks again
        sys.exit(code)

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
            failure = Failure(0, socket.gethostname(), status.get("step", 0), reason, exit_code=code)
            write_failure(folder.failed, failure)
            write_status(folder, "failed")


def take_local_gpus(environment: JobEnvironment) -> bool:
    """Returns whether this is a process of a local job, which then sees the GPUs that it was given."""
    local = environment.name() == "local"
    if local:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[LOCAL_GPUS]
    return local
