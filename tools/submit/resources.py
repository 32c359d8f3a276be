"""What a job asks Slurm for."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import UserError

SIGNAL_SECONDS = 120
"""How long before its time is up a job is told to save."""

_FOREVER_MINUTES = 366 * 24 * 60

_BEFORE = (
    "# Slurm 22.05's srun does not take --cpus-per-task over from sbatch.",
    'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi',
    "export SLURM_EXPORT_ENV=ALL",
)
_AFTER = (
    "status=$?",
    "# A process was killed, or told to end before it could have itself queued again: go on where it was saved last.",
    'job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"',
    'job="${job:-$SLURM_JOB_ID}"',
    'end="status $status"',
    'if [ "$status" -eq 1 ] && [ -f "$notes/${job}_run" ]; then',
    '    end="$(run_python -m engine.slurm "$(cat "$notes/${job}_run")" "$status" "$started")"',
    "fi",
    'if [ "$status" -eq 75 ] || [ "$status" -gt 128 ] || [ "$end" = killed ]; then',
    '    state="$(scontrol show job --oneliner "$job" || true)"',
    "    # A job that is cancelled is COMPLETING while this script ends, as is one whose time is up.",
    '    case " $state " in',
    '        *" JobState=RUNNING "* | *" JobState=COMPLETING Reason=TimeLimit "*) scontrol requeue "$job" ;;',
    "    esac",
    "fi",
    'exit "$status"',
)
"""Lines of the batch script around srun."""

_TIME = re.compile(r"(?:(?P<days>\d+)-(?P<dh>\d+)(?::(?P<dm>\d+)(?::(?P<ds>\d+))?)?|(?P<plain>\d+(?::\d+){0,2}))$")


@dataclass(frozen=True)
class Resources:
    """Options of ``tools.submit`` under their own names; None leaves a thing to the cluster."""

    nodes: int = 1
    gpus_per_node: int = 1
    tasks_per_node: int | None = None
    """Processes on a node; None: one a GPU, and one where there is none."""
    cpus_per_task: int | None = None
    mem: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    array_parallelism: int | None = None
    slurm: dict[str, str] = field(default_factory=dict)
    """Any other option of sbatch, without its dashes."""

    @property
    def tasks(self) -> int:
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def minutes(self) -> int | None:
        """The time, rounded up as Slurm does.

        Raises:
            UserError: it is none.
        """
        return None if self.time is None else parse_minutes(self.time)


def parse_minutes(text: str) -> int:
    """``90``, ``12:00:00``, ``1:30`` (minutes and seconds), ``1-12``, ``1-12:30`` or ``1-12:30:00`` in minutes.

    Raises:
        UserError: it is none of these.
    """
    match = _TIME.match(text)
    if match is None:
        raise UserError(f"--time: '{text}' is no time; write hours:minutes:seconds (12:00:00) or days-hours (2-12)")
    if match["plain"]:
        parts = [int(part) for part in match["plain"].split(":")]
        days, hours, minutes, seconds = 0, *{1: [0, *parts, 0], 2: [0, *parts]}.get(len(parts), parts)
    else:
        days, hours, minutes, seconds = (int(match[key] or 0) for key in ("days", "dh", "dm", "ds"))
    total = math.ceil((((days * 24 + hours) * 60 + minutes) * 60 + seconds) / 60)
    if total < 1:
        raise UserError(f"--time: '{text}' is no time at all")
    return total


def environment_lines(environment: Mapping[str, str]) -> list[str]:
    """Shell lines that set up what ``SWIN_ENV`` names, as slurm/launch.sh does: a virtual environment or a file.

    Raises:
        UserError: it is neither.
    """
    text = environment.get("SWIN_ENV", "")
    if not text:
        return []
    path = Path(text).expanduser().absolute()
    for file in (path / "bin" / "activate", path):
        if file.is_file():
            return [f". {shlex.quote(str(file))}"]
    raise UserError(f"SWIN_ENV: {path} is neither a virtual environment nor a file to source")


def local_parameters(resources: Resources, visible_gpus: str) -> dict[str, Any]:
    """The arguments of submitit's local executor. ``visible_gpus``: CUDA_VISIBLE_DEVICES, from which it may take."""
    visible = [int(number) for number in visible_gpus.split(",") if number.strip().isdigit()]
    return {
        "tasks_per_node": resources.tasks,
        "gpus_per_node": resources.gpus_per_node,
        **({"visible_gpus": visible} if visible else {}),
        "timeout_min": resources.minutes or _FOREVER_MINUTES,
        "signal_delay_s": SIGNAL_SECONDS,
        "stderr_to_stdout": True,
    }


def slurm_parameters(
    resources: Resources, name: str, folder: Path, python: str, environment: Sequence[str] = ()
) -> dict[str, Any]:
    """The arguments of submitit's Slurm executor.

    Args:
        folder: where jobs leave the names of their runs' folders.
        python: the command, as a shell takes it, that runs Python with the job's code.
        environment: shell lines that set it up.
    """
    places = [f"notes={shlex.quote(str(folder))}", f'run_python() {{ {python} "$@"; }}', 'started="$(date +%s)"']
    return {
        "job_name": name,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks,
        "gpus_per_node": resources.gpus_per_node,
        "cpus_per_task": resources.cpus_per_task,
        "mem": resources.mem,
        "time": resources.minutes,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "wckey": None,
        "signal_delay_s": SIGNAL_SECONDS,
        "stderr_to_stdout": True,
        "setup": [*environment, *_BEFORE, *places],
        "teardown": [*_AFTER],
        # No rank ends before all have saved; one that is lost with its node is waited for in vain, but no longer.
        "srun_args": ["--kill-on-bad-exit=0", "--wait=60"],
        "additional_parameters": {"requeue": True, **resources.slurm},
        **({} if resources.array_parallelism is None else {"array_parallelism": resources.array_parallelism}),
    }
