"""Small trainings as batch jobs, from the templates in slurm/, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.run_folder.paths import RunDir
from engine.run_folder.status import read_status
from tests.classification.small import write_config
from tests.distributed import ROOT
from tests.slurm.cluster import Cluster
from tools.chaos.compare import checkpoint_differences, records_difference
from tools.snapshot import take_snapshot

CPU = ("--gpus-per-node=0", "--mem=0", "--cpus-per-task=1")
TWO_NODES = (*CPU, "--nodes=2", "--ntasks-per-node=1")
STEPS = 60
SLOW = Path(__file__).with_name("slow")
SECTIONS = {
    "model": {"drop_path": 0.2, "drop_rate": 0.1},
    "augmentation": {"mixup": 0.8},
    "training": {"steps": STEPS, "ema": {"decay": 0.99}},
    "evaluation": {"every_steps": STEPS},
    "checkpoint": {"every_steps": 8},
    "logging": {"every_steps": 5},
}


@dataclass(frozen=True)
class Job:
    """A batch job that trains in a folder of its own."""

    cluster: Cluster
    number: str
    place: Path
    """Where sbatch was called; its experiments lie below."""

    @property
    def output(self) -> str:
        """What all starts have printed."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.place.glob("slurm-*.out")))

    @property
    def runs(self) -> list[RunDir]:
        return [RunDir(path) for path in sorted(self.place.glob("experiments/experiment_*"))]

    @property
    def run(self) -> RunDir:
        """The only experiment."""
        (run,) = self.runs
        return run

    @property
    def details(self) -> dict[str, str]:
        return self.cluster.job(self.number)

    @property
    def environment(self) -> dict[str, Any]:
        return json.loads(self.run.environment.read_text())

    def is_training(self) -> bool:
        """Whether it has saved at least once."""
        return any(run.checkpoints.is_dir() and any(run.checkpoints.glob("step_*.pt")) for run in self.runs)

    def wait_training(self) -> None:
        self.wait_for(self.is_training, 120, "the first checkpoint")

    def wait_ended(self, seconds: float = 240) -> str:
        """Its last state."""
        states: list[str] = []
        self.wait_for(lambda: states.extend(self.cluster.ended_states([self.number])) or states, seconds, "the end")
        return states[0]

    def wait_for(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Raises:
        TimeoutError: the condition is not met in time; with what the job has said.
        """
        try:
            self.cluster.wait_for(condition, seconds, f"{what} of job {self.number}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n--- job {self.number}\n{self.output}") from None

    def assert_completed(self) -> None:
        assert self.wait_ended() == "COMPLETED", self.output
        for run in self.runs:
            status = read_status(run.status)
            assert status is not None
            assert status["state"] == "finished", self.output

    def kill_rank(self, rank: int) -> None:
        """SIGKILL to the process of a rank."""
        os.kill(self._pid(rank), signal.SIGKILL)

    def kill_step(self, rank: int) -> None:
        """SIGKILL to all that runs of the step on a rank's node: the rank, and Slurm's own process above it."""
        pid = self._pid(rank)
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert Path(f"/proc/{parent}/comm").read_text() == "slurmstepd\n"
        os.kill(parent, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)

    def _pid(self, rank: int) -> int:
        return self.environment["devices"][rank]["pid"]


def submit(
    cluster: Cluster,
    place: Path,
    *options: str,
    template: str = "train_clf_ddp",
    arguments: tuple[str, ...] | None = None,
    code: Path = ROOT,
    env: dict[str, str] | None = None,
) -> Job:
    """Submits a template, called in ``place``, whose steps take a tenth of a second longer than they need.

    Args:
        arguments: of the command; None: train as :data:`SECTIONS` say.
    """
    place.mkdir(exist_ok=True)
    if arguments is None:
        arguments = ("--config", str(write_config(place, **SECTIONS)))
    path = os.pathsep.join([str(SLOW), str(ROOT)])
    environment = {"SWIN_CODE": str(code), "SWIN_ENV": sys.prefix, "PYTHONPATH": path, "SLOW_STEPS": "0.1"}
    script = str(code / "slurm" / f"{template}.sbatch")
    number = cluster.sbatch(*options, script, *arguments, cwd=place, env={**environment, **(env or {})})
    return Job(cluster, number, place)


def copy_code(place: Path) -> Path:
    """A copy of this clone in a folder below ``place``, for a test to change."""
    return take_snapshot(ROOT, place)


def assert_same_result(reference: RunDir, other: RunDir) -> None:
    """Final weights, optimizer state, moving average and train losses are the same, bit by bit."""
    differences = checkpoint_differences(reference, other)
    assert not {name: fault for name, fault in differences.items() if fault}
    assert records_difference(reference.metrics, other.metrics, "train") is None
