"""Real groups of processes on this machine, launched as torchrun or Slurm would launch them.

``run_ranks(2, function, argument)`` calls a function of a test module on every rank; ``launch(2, command)`` runs any
command, such as a training, on every rank, and ``Group(2, command)`` lets a test act on its processes meanwhile.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch.distributed import TCPStore

from engine.config.run import DistributedConfig
from engine.distributed.connect import connect
from engine.distributed.layout import detect_layout
from tests import prepared
from tests.environment import ROOT, clean_environment

GRACE_SECONDS = 10.0
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        "torch",
        "timm",
        "engine.distributed.connect",
        "engine.model.wrap",
        "engine.training.optimizer",
        "classification.task",
    ]
)


class Killable(Protocol):
    def kill(self) -> None: ...


P = TypeVar("P", bound=Killable)


@dataclass(frozen=True)
class Ended:
    """How a rank's process ended."""

    returncode: int
    output: str
    """What it printed, stderr included."""


def torchrun_environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torchrun sets for a rank; its agent, here the test, holds the store on ``port``, see :func:`agent_store`."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def slurm_environment(rank: int, world_size: int, job: str) -> dict[str, str]:
    """What srun sets for a task of ``job`` on its only node."""
    return {
        "SLURM_JOB_ID": job,
        "SLURM_STEP_ID": "0",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_STEP_NUM_TASKS": str(world_size),
        "SLURM_STEP_TASKS_PER_NODE": str(world_size),
    }


def launcher_environment(rank: int, world_size: int, port: int, slurm_job: str | None) -> dict[str, str]:
    """Slurm's variables for a job of that number, torchrun's for a group, none for a single process."""
    if slurm_job is not None:
        return slurm_environment(rank, world_size, slurm_job)
    return {} if world_size == 1 else torchrun_environment(rank, world_size, port)


def agent_store() -> TCPStore:
    """A store on a free port of this machine, through which ranks meet."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


class Group:
    """The processes of one launched command. Leaving its block kills those that still run.

    Those of a module are forks, see :mod:`tests.prepared`.
    """

    def __init__(
        self,
        world_size: int,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        slurm_job: str | None = None,
        cwd: Path = ROOT,
        new_interpreter: bool = False,
    ) -> None:
        """Starts ``command`` on every rank; a single one without a launcher's variables unless it is a Slurm job.

        ``new_interpreter``: nothing has been imported when it starts.
        """
        self._store = agent_store()
        self._folder = tempfile.TemporaryDirectory()
        self.processes: list[prepared.Forked | subprocess.Popen[bytes]] = []
        for rank in range(world_size):
            own = launcher_environment(rank, world_size, self._store.port, slurm_job)
            variables = clean_environment({**own, **(env or {})})
            with self._output_file(rank).open("wb") as output:
                if not new_interpreter and prepared.can_be_prepared(command, variables):
                    self.processes.append(prepared.start(command, variables, cwd, Path(output.name)))
                    continue
                self.processes.append(
                    subprocess.Popen(
                        list(command),
                        env=variables,
                        cwd=cwd,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self._folder.cleanup()

    def output(self, rank: int) -> str:
        """What a rank has printed so far."""
        return self._output_file(rank).read_text(errors="replace")

    def wait(self, timeout: float = 600.0) -> list[Ended]:
        """The end of every rank, see :func:`wait_for`."""
        codes = wait_for(self.processes, lambda process: process.poll(), self.output, timeout)
        return [Ended(code, self.output(rank)) for rank, code in enumerate(codes)]

    def _output_file(self, rank: int) -> Path:
        return Path(self._folder.name, f"rank_{rank}.txt")


def launch(
    world_size: int,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    slurm_job: str | None = None,
    cwd: Path = ROOT,
    timeout: float = 600.0,
    new_interpreter: bool = False,
) -> list[Ended]:
    """Runs ``command`` to its end on every rank, see :class:`Group`."""
    with Group(world_size, command, env=env, slurm_job=slurm_job, cwd=cwd, new_interpreter=new_interpreter) as group:
        return group.wait(timeout)


def run_ranks(
    world_size: int,
    function: Callable[..., Any],
    *args: Any,
    slurm_job: str | None = None,
    meeting_place: Path | None = None,
    timeout: float = 600.0,
) -> list[Any]:
    """What ``function(ranks, *args)`` returns on each rank of a gloo group.

    The processes are forks of one that has torch loaded, so they start at once.

    Args:
        function: of a module's top level; it returns plain types and tensors, and may print.
        slurm_job: started as a Slurm job of this number instead of by torchrun.
        meeting_place: folder where the ranks of a Slurm job find each other.

    Raises:
        AssertionError: a rank failed; with what those that did have printed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name), agent_store()
        processes = []
        for rank in range(world_size):
            env = launcher_environment(rank, world_size, store.port, slurm_job)
            inputs = (env, folder, meeting_place or folder / "meeting", function, args)
            processes.append(FORKSERVER.Process(target=_run_rank, args=(rank, *inputs), daemon=True))
            processes[-1].start()

        def output(rank: int) -> str:
            path = folder / f"rank_{rank}.txt"
            return path.read_text(errors="replace") if path.exists() else ""

        try:
            codes = wait_for(processes, lambda process: process.exitcode, output, timeout)
        finally:
            for process in processes:
                process.kill()
                process.join()
        failures = [f"rank {rank} ended with {code}:\n{output(rank)}" for rank, code in enumerate(codes) if code]
        assert not failures, "\n".join(failures)
        return [torch.load(folder / f"result_{rank}.pt", weights_only=True) for rank in range(world_size)]


def _run_rank(
    rank: int,
    env: Mapping[str, str],
    folder: Path,
    meeting_place: Path,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    with (folder / f"rank_{rank}.txt").open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    own = clean_environment(env)
    os.environ.clear()
    os.environ.update(own)
    torch.set_num_threads(1)
    ranks = connect(DistributedConfig(device="cpu", timeout_seconds=60.0), detect_layout(os.environ), meeting_place)
    torch.save(function(ranks, *args), folder / f"result_{rank}.pt")
    ranks.close()


def wait_for(
    processes: Sequence[P], code: Callable[[P], int | None], output: Callable[[int], str], timeout: float
) -> list[int]:
    """Exit codes of all ranks. As torchrun does, the others are killed if one has failed and they do not end soon.

    Raises:
        TimeoutError: some still run after ``timeout`` seconds; with the outputs of all.
    """
    deadline, failed = time.monotonic() + timeout, False
    while None in (codes := [code(process) for process in processes]):
        if not failed and any(codes):
            failed, deadline = True, min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            if not failed:
                outputs = "\n".join(f"--- rank {rank}\n{output(rank)}" for rank in range(len(processes)))
                raise TimeoutError(f"exit codes {codes} after {timeout} s\n{outputs}")
            for process in processes:
                process.kill()
        time.sleep(0.01)
    return [number for number in codes if number is not None]
