"""``python -m tools.submit --task TASK --config FILE``, ``--status`` and ``--retry``; see ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.entry import exit_code
from engine.errors import UserError
from tools.submit.resources import Resources, parse_minutes

if TYPE_CHECKING:
    from tools.submit.submission import Submitted

_RESOURCES = {
    "--nodes": (int, "N", "nodes (1)"),
    "--gpus-per-node": (int, "G", "GPUs on each node, one process for each (1); 0: a job on CPUs"),
    "--tasks-per-node": (int, "N", "processes on each node, if not one a GPU"),
    "--cpus-per-task": (int, "C", "cores for each process and its data workers"),
    "--mem": (str, "M", "memory on each node, such as 64G"),
    "--time": (str, "T", "time limit, such as 12:00:00 or 2-00; a job that reaches it saves and goes on in another"),
    "--partition": (str, "P", "Slurm's partition"),
    "--account": (str, "A", "Slurm's account"),
    "--qos": (str, "Q", "Slurm's quality of service"),
    "--constraint": (str, "C", "features that nodes must have"),
    "--array-parallelism": (int, "K", "most runs of a sweep at once"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line asks for. Returns 0, or 2 for input that is wrong."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    given = {_field(name): value for name in _RESOURCES if (value := getattr(options, _field(name))) is not None}
    if options.slurm:
        given["slurm"] = dict(options.slurm)

    def command() -> int:
        if options.status is not None:
            return _status(options.status)
        if options.retry is not None:
            return _retry(options.retry, given)
        if options.task is None or options.config is None:
            parser.error("--task and --config are needed (or --status, or --retry)")
        return _submit(options, given)

    return exit_code(command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.submit",
        description="Queues a training, or one for each combination of swept values, and returns at once. A copy of "
        "the code is made, so that later edits do not change what waits.",
    )
    parser.add_argument("--task", metavar="TASK", help="classification, ...")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the run's configuration")
    parser.add_argument("--cluster", choices=("slurm", "local", "debug"), default="slurm", help="where to (slurm)")
    parser.add_argument("--name", default="", help="the experiment's name")
    parser.add_argument(
        "--sweep", action="append", default=[], metavar="key.path=a,b,c", help="one run a value; may be repeated"
    )
    for name, (kind, metavar, text) in _RESOURCES.items():
        parser.add_argument(name, type=kind, metavar=metavar, help=text)
    parser.add_argument(
        "--slurm", action="append", type=_option, metavar="OPTION=VALUE", help="any other option of sbatch, without --"
    )
    looks = parser.add_mutually_exclusive_group()
    looks.add_argument(
        "--status", nargs="*", type=Path, metavar="DIR", help="how the runs in DIR (experiments) are doing"
    )
    looks.add_argument("--retry", nargs="*", type=Path, metavar="DIR", help="queue again what stopped unfinished there")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="settings that win over the file's")
    return parser


def _field(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.removeprefix("--").partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form OPTION=VALUE")
    return name, value


def _submit(options: argparse.Namespace, given: dict[str, Any]) -> int:
    from tools.submit.submission import debug, resolve, submit, tasks
    from tools.submit.sweep import combinations

    if options.task not in tasks():
        raise UserError(f"--task: there is no '{options.task}'; there is {', '.join(tasks())}")
    resources = _checked(Resources(**given))
    configs = resolve(options.task, options.config, options.overrides, options.sweep, options.name)
    _say_ignored(options.cluster, given)
    if options.cluster == "debug":
        if len(configs) > 1:
            raise UserError("--cluster debug: runs one job in this process; leave --sweep away")
        debug(options.task, configs[0])
    _report(submit(options.task, configs, combinations(options.sweep), options.cluster, resources))
    return 0


def _checked(resources: Resources) -> Resources:
    if resources.time is not None:
        parse_minutes(resources.time)
    for name, least in {"nodes": 1, "gpus_per_node": 0, "tasks_per_node": 1, "cpus_per_task": 1}.items():
        value = getattr(resources, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')}: must be {least} or more, not {value}")
    return resources


def _say_ignored(cluster: str, given: dict[str, Any]) -> None:
    known = {"slurm": given, "local": ("nodes", "gpus_per_node", "tasks_per_node", "time"), "debug": ()}[cluster]
    ignored = ", ".join(f"--{name.replace('_', '-')}" for name in given if name not in known)
    if ignored:
        print(f"--cluster {cluster} does without {ignored}", file=sys.stderr)


def _report(submitted: Sequence[Submitted]) -> None:
    """What was queued, where its output goes, and how to follow and to cancel it."""
    for each in submitted:
        swept = "  " + " ".join(each.note.swept) if each.note.swept else ""
        print(f"{os.path.relpath(each.folder.path)}  job {each.note.job}{swept}")
        print(f"  output: {os.path.relpath(each.note.log)}")
        print(f"  log:    {os.path.relpath(each.folder.log_file(0))}")
    jobs = dict.fromkeys(each.note.job.partition("_")[0] for each in submitted)
    end = "scancel" if submitted[0].note.cluster == "slurm" else "kill"
    shown = " ".join(os.path.relpath(each.folder.path) for each in submitted)
    print(f"status: python -m tools.submit --status {shown}")
    print(f"cancel: {end} {' '.join(jobs)}")


def _status(places: Sequence[Path]) -> int:
    from tools.submit.overview import find_runs, look, slurm_queue, table

    queued = slurm_queue()
    print(table([look(run, queued) for run in find_runs(places or [Path("experiments")])]))
    return 0


def _retry(places: Sequence[Path], given: dict[str, Any]) -> int:
    from tools.submit.overview import find_runs, look, slurm_queue
    from tools.submit.retry import retry

    queued = slurm_queue()
    views = [look(run, queued) for run in find_runs(places or [Path("experiments")])]
    submitted, strangers = retry(views, given)
    for view in strangers:
        print(f"{view.folder.path}: {view.state}, but not submitted here: use --resume", file=sys.stderr)
    if submitted:
        _report(submitted)
    else:
        print("nothing to retry: everything here is finished, runs or waits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
