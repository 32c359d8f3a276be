"""From what the user typed to queued jobs: everything that can be wrong is found before the first one is queued."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel
from submitit import DebugExecutor

from engine.config.load import is_below, load_config
from engine.config.run import RunConfig
from engine.errors import UserError
from engine.run_folder.paths import RunDir
from engine.task.quick_check import check_settings
from engine.task.spec import find_spec
from tools.snapshot import take_snapshot
from tools.submit import folders
from tools.submit.executors import queue_slurm, start_local
from tools.submit.folders import Note
from tools.submit.job import Job
from tools.submit.resources import Resources
from tools.submit.sweep import combinations

CODE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Submitted:
    """A run that waits or runs."""

    folder: RunDir
    note: Note
    devices: str
    """What it trains on."""


def seeds_from(task: str, config: Path, overrides: Sequence[str], count: int) -> tuple[list[str], str]:
    """Returns the overrides without ``experiment.seed``, and a sweep over ``count`` seeds from the configured one on.

    Raises:
        UserError: the configuration is wrong.
    """
    first = load_config(find_spec(task).schema(), config, overrides, slow_checks=False).experiment.seed
    others = [text for text in overrides if text.partition("=")[0] != "experiment.seed"]
    return others, f"experiment.seed={','.join(map(str, range(first, first + count)))}"


def resolve(task: str, config: Path, overrides: Sequence[str], sweeps: Sequence[str], name: str) -> list[RunConfig]:
    """Checks the configuration of each run; those of a sweep are named and tagged by what is special about them.

    Raises:
        UserError: a configuration is wrong, or what it reads is not there.
    """
    twice = {sweep.partition("=")[0] for sweep in sweeps} & {override.partition("=")[0] for override in overrides}
    if twice:
        raise UserError(f"--sweep: {', '.join(sorted(twice))}: swept, and given a single value too; leave one away")
    spec, configs = find_spec(task), list[RunConfig]()
    for swept in combinations(sweeps, spec.schema()):
        run = load_config(spec.schema(), config, [*overrides, *swept])
        readable = " ".join(filter(None, [name or run.experiment.name, *swept]))
        configs.append(named(run, readable, ["sweep", *swept] if swept else []))
    if len({run.experiment.root for run in configs}) > 1:
        raise UserError("--sweep: experiment.root: the runs of a sweep lie in one folder; submit one sweep for each")
    for run in configs:
        _check_paths(run)
        if refused := check_settings(spec, run):
            raise UserError("\n".join(refused))
        spec.inputs(run)
    return configs


def check_batches(configs: Iterable[RunConfig], resources: Resources) -> None:
    """Makes sure that each run's batch can be divided into as many processes as are asked for.

    Raises:
        UserError: it cannot, and the text names the nearest that can.
    """
    ranks = resources.nodes * resources.tasks
    for asked in (run.training for run in configs):
        if asked.global_batch_size % ranks:
            from engine.data.batch_plan import resolve_accumulation  # with torch, which is slow to import

            resolve_accumulation(asked.global_batch_size, asked.micro_batch_size, asked.accumulation, ranks)


def named(config: RunConfig, name: str, tags: Sequence[str]) -> RunConfig:
    """Returns a configuration under another name, with more tags."""
    own = config.experiment
    return config.model_copy(update={"experiment": own.model_copy(update={"name": name, "tags": [*own.tags, *tags]})})


def _check_paths(config: RunConfig) -> None:
    """Looks for what a run reads where there is a network and somebody who can still fetch it: on the login node."""
    fetched = ("data",) if getattr(getattr(config, "data", None), "download", False) else ()
    for key, path in _paths(config):
        if not path.exists() and not is_below(key, ("experiment", *fetched)):
            raise UserError(f"{key}: {path} does not exist; fetch it first, as nodes may have no network")


def _paths(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Yields the paths in a configuration under their dotted keys."""
    for name, value in section:
        if isinstance(value, BaseModel):
            yield from _paths(value, f"{prefix}{name}.")
        elif isinstance(value, Path):
            yield f"{prefix}{name}", value


def submit(
    task: str, configs: Sequence[RunConfig], swept: Sequence[tuple[str, ...]], cluster: str, resources: Resources
) -> list[Submitted]:
    """Claims a folder for each configuration and queues its run; for several, an array.

    Raises:
        UserError: the job is refused; no folder is left behind.
    """
    claimed = folders.claim(configs)
    try:
        name = configs[0].experiment.name if len(configs) == 1 else ""
        return queue(task, claimed, swept, cluster, resources, name or task)
    except BaseException:
        folders.give_back(claimed)
        raise


def queue(
    task: str,
    runs: Sequence[RunDir],
    swept: Sequence[tuple[str, ...]],
    cluster: str,
    resources: Resources,
    name: str,
    first: int = 0,
) -> list[Submitted]:
    """Queues the runs of claimed folders, from a copy of the code as it is now.

    Args:
        first: of a local job, how many others run already, which have the first GPUs.

    Raises:
        UserError: the job is refused; submitit's files are removed.
    """
    root = runs[0].path.parent
    if mark := next((mark for mark in "%\\" if mark in str(root)), ""):
        raise UserError(f"experiment.root: {root}: {mark} has a meaning in the names of a job's files; use another")
    snapshot = take_snapshot(CODE, root / folders.SNAPSHOTS, [root])
    jobs = [Job(task, run.config, Path.cwd()) for run in runs]
    place = folders.files_folder(runs[0])
    try:
        if cluster == "slurm":
            queued = queue_slurm(jobs, resources, name, place, snapshot)
        else:
            queued = start_local(jobs, resources, place, snapshot, first)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    submitted = []
    for run, values, each in zip(runs, swept, queued, strict=True):
        where = (cluster, each.job, socket.gethostname(), str(each.log))
        note = Note(task, *where, snapshot.name, asdict(resources), values)
        folders.write_note(run, note)
        submitted.append(Submitted(run, note, each.devices))
    return submitted


def debug(task: str, config: RunConfig) -> None:
    """Runs in this process, where breakpoints work, with the code as it is; exits with the run's code."""
    folder = folders.claim([config])[0]
    DebugExecutor(folders.files_folder(folder)).submit(Job(task, folder.config, Path.cwd())).results()
