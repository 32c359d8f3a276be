"""What a job asks Slurm for."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.distributed.gpus import gpu_count
from engine.errors import UserError

SIGNAL_SECONDS = 120
"""How long before its time is up a job is told to save."""

OWN = (
    *("array", "error", "export", "job-name", "open-mode", "output", "requeue", "no-requeue", "signal", "wrap"),
    *("ntasks", "ntasks-per-node", "ntasks-per-gpu", "gpus", "gpus-per-task", "cpus-per-gpu"),
)
"""Options of sbatch that follow from others, or that a job here could not do without."""

_BEFORE = (
    'run_python() { "$python" "$code/tools/submit/launcher.py" "$@"; }',
    '. "$code/slurm/requeue.sh"',
    '. "$code/slurm/environment.sh" "$environment" "$python"',
    'hidden="$(run_python -m engine.distributed.gpus)" || exit 2',
    '[ -z "$hidden" ] || unset "$hidden"',
    "# Slurm 22.05's srun does not take --cpus-per-task over from sbatch.",
    'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi',
    "export SLURM_EXPORT_ENV=ALL",
    'SWIN_FOLDER_NOTE="$(mktemp || mktemp -p /tmp)" # rank 0, on this node, writes the experiment\'s folder there',
    "export SWIN_FOLDER_NOTE",
    "trap : TERM USR1 USR2 # what Slurm wants, it also tells srun: the end is for this script to see",
    'started="$(date +%s)"',
)
_AFTER = (
    "status=$?",
    'folder="$(cat "$SWIN_FOLDER_NOTE")"',
    'rm -f "$SWIN_FOLDER_NOTE"',
    'end_training "$status" "$folder" "$started" "$notes/${job}_starts"',
)
"""Lines of the batch script around srun."""


_GPUS = "GPUs on each node, one process for each (default: 1; local: if there is one); 0: CPUs"
_TIME = "time limit, such as 12:00:00 or 2-00; a job that reaches it saves and goes on in another"


def _typed(default: Any, text: str, **how: Any) -> Any:
    """Declares a field that is an option of the command line: its help, and how argparse takes it."""
    return field(default=default, metadata={"default": None, "help": text, **how})


@dataclass(frozen=True)
class Resources:
    """Options of ``tools.submit`` under their own names; None leaves a thing to the cluster."""

    nodes: int = _typed(1, "nodes (default: 1)", type=int, metavar="N")
    gpus_per_node: int = _typed(1, _GPUS, type=int, metavar="G")
    tasks_per_node: int | None = _typed(None, "processes on each node, if not one a GPU", type=int, metavar="N")
    cpus_per_task: int | None = _typed(None, "cores for each process and its data workers", type=int, metavar="C")
    mem: str | None = _typed(None, "memory on each node, such as 64G", metavar="M")
    time: str | None = _typed(None, _TIME, metavar="T")
    partition: str | None = _typed(None, "Slurm's partition", metavar="P")
    account: str | None = _typed(None, "Slurm's account", metavar="A")
    qos: str | None = _typed(None, "Slurm's quality of service", metavar="Q")
    constraint: str | None = _typed(None, "features that nodes must have", metavar="C")
    array_parallelism: int | None = _typed(None, "most runs of a sweep at once", type=int, metavar="K")
    exclude_failed: bool = _typed(False, "after a failure, requeue without the node that failed", action="store_true")
    slurm: dict[str, str] = field(default_factory=dict)
    """Any other option of sbatch, without its dashes."""

    @property
    def tasks(self) -> int:
        """Processes on each node."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def minutes(self) -> int | None:
        """Returns the time, rounded up as Slurm does. Raises a UserError if it is none."""
        return None if self.time is None else parse_minutes(self.time)


OPTIONS = {each.name: each.metadata for each in fields(Resources) if each.metadata}
"""How argparse takes the resources that have an option of their own."""


def check(resources: Resources) -> Resources:
    """Returns the resources.

    Raises:
        UserError: a number is too small, or the time none, or too short.
    """
    least = {"nodes": 1, "gpus_per_node": 0, "tasks_per_node": 1, "cpus_per_task": 1, "array_parallelism": 1}
    for name, number in least.items():
        value = getattr(resources, name)
        if value is not None and value < number:
            raise UserError(f"{flag(name)}: must be {number} or more, not {value}")
    _check_gpus(resources)
    if resources.minutes is not None and resources.minutes * 60 <= SIGNAL_SECONDS:
        raise UserError(f"--time: {resources.time} is too short: a job is told to save {SIGNAL_SECONDS} s before")
    return resources


def check_known(cluster: str, given: Iterable[str]) -> None:
    """Refuses names of resources that ``cluster`` would leave unread.

    Raises:
        UserError: there are some.
    """
    known = {"local": ("nodes", "gpus_per_node", "tasks_per_node", "time"), "debug": ()}.get(cluster)
    unread = [flag(name) for name in given if known is not None and name not in known]
    if unread:
        does = f"takes {', '.join(map(flag, known))} alone" if known else "takes what this process has"
        raise UserError(f"{', '.join(unread)}: --cluster {cluster} {does}; leave away what only Slurm can grant")


def _check_gpus(resources: Resources) -> None:
    """Makes sure that every GPU takes one process, as in slurm/launch.sh, however the GPUs are asked for."""
    by_gres = _gpus_by_gres(resources)
    if by_gres and resources.gpus_per_node:
        raise UserError(
            f"--slurm gres={resources.slurm['gres']}: use --gpus-per-node {by_gres}; where the cluster takes only "
            f"--gres: --gpus-per-node 0 --tasks-per-node {by_gres}"
        )
    gpus = by_gres or resources.gpus_per_node
    if gpus and resources.tasks != gpus:
        leave = f"leave it away, or add --gpus-per-node {resources.tasks}, or --gpus-per-node 0 to train on CPUs"
        raise UserError(
            f"--tasks-per-node: {resources.tasks} process(es) but {gpus} GPU(s) on each node, and every GPU takes one; "
            + (f"set it to {gpus}" if by_gres else leave)
        )


def _gpus_by_gres(resources: Resources) -> int:
    """Returns the GPUs of a node that ``--slurm gres=gpu:4`` asks for."""
    return sum(gpu_count(part) for part in resources.slurm.get("gres", "").split(",") if part.startswith("gpu"))


def describe_request(resources: Resources) -> str:
    """Returns the devices that a job of Slurm gets."""
    gpus = resources.gpus_per_node or _gpus_by_gres(resources)
    nodes = f"{resources.nodes} node{'s' if resources.nodes > 1 else ''}"
    if gpus:
        return f"{gpus} GPU{'s' if gpus > 1 else ''} on {'each of ' if resources.nodes > 1 else ''}{nodes}"
    return f"CPUs of {nodes}, {resources.tasks} process{'es' if resources.tasks > 1 else ''} on each"


def flag(name: str) -> str:
    """Returns ``--gpus-per-node`` for ``gpus_per_node``."""
    return f"--{name.replace('_', '-')}"


def parse_minutes(text: str) -> int:
    """Parses ``90``, ``12:00:00``, ``1:30`` (minutes and seconds), ``1-12``, ``1-12:30`` or ``1-12:30:00`` to minutes.

    Raises:
        UserError: it is none of these.
    """
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    if len(parts) > len(units) or not all(re.fullmatch("[0-9]+", part) for part in (*parts, days if dash else "0")):
        raise UserError(f"--time: '{text}' is no time; write hours:minutes:seconds (12:00:00) or days-hours (2-12)")
    seconds = 86400 * int(days or 0) + sum(int(part) * unit for part, unit in zip(parts, units, strict=False))
    if not seconds:
        raise UserError(f"--time: '{text}' is no time at all")
    return math.ceil(seconds / 60)


def environment_place(environment: Mapping[str, str]) -> str:
    """Returns what ``SWIN_ENV`` names, a virtual environment or a file to source, as absolute path; or nothing.

    Raises:
        UserError: it is neither.
    """
    text = environment.get("SWIN_ENV", "")
    if not text:
        return ""
    path = Path(text).expanduser().absolute()
    if not (path / "bin" / "activate").is_file() and not path.is_file():
        raise UserError(f"SWIN_ENV: {path} is neither a virtual environment nor a file to source")
    return str(path)


def launcher(code: Path) -> str:
    """Returns the command, as a shell takes it, that runs Python with a copy of the code."""
    return shlex.join([sys.executable, str(code / "tools" / "submit" / "launcher.py")])


def slurm_parameters(resources: Resources, name: str, folder: Path, code: Path, place: str = "") -> dict[str, Any]:
    """Returns the arguments of submitit's Slurm executor.

    Args:
        folder: where jobs leave notes for their next start.
        code: the copy of the code that jobs run, with this Python.
        place: what sets up their environment, see :func:`environment_place`.
    """
    variables = {"code": code, "notes": folder, "environment": place, "python": sys.executable}
    alike = ("nodes", "cpus_per_task", "mem", "partition", "account", "qos", "constraint")
    return {
        "job_name": " ".join(name.split()),
        **{option: getattr(resources, option) for option in alike},
        "ntasks_per_node": resources.tasks,
        "gpus_per_node": None if _gpus_by_gres(resources) else resources.gpus_per_node,
        "time": resources.minutes,
        "wckey": None,
        "signal_delay_s": SIGNAL_SECONDS,
        "stderr_to_stdout": True,
        "setup": [
            *(f"{variable}={shlex.quote(str(value))}" for variable, value in variables.items()),
            *(["export SWIN_EXCLUDE_FAILED=1"] if resources.exclude_failed else []),
            *_BEFORE,
        ],
        "teardown": [*_AFTER],
        # No rank ends before all have saved; one that is lost with its node is waited for in vain, but no longer.
        "srun_args": ["--kill-on-bad-exit=0", "--wait=60"],
        "additional_parameters": {"requeue": True, **resources.slurm},
        **({} if resources.array_parallelism is None else {"array_parallelism": resources.array_parallelism}),
    }
