"""``python -m tools.submit --task TASK --config FILE``, ``--status`` and ``--retry``; see ``--help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.errors import UserError
from engine.files import command, shown
from engine.task.spec import find_spec, known_tasks
from tools.submit.resources import OPTIONS, OWN, Resources, check, check_known, flag

if TYPE_CHECKING:
    from tools.submit.overview import View
    from tools.submit.submission import Submitted


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line asks for. Returns 0, or 2 for input that is wrong."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)
    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    if options.slurm:
        given["slurm"] = dict(options.slurm)

    def command() -> int:
        if options.status is not None:
            _refuse_surplus(parser, options, "status", [*given])
            from tools.submit.overview import table

            print(table(_views(options.status)))
            return 0
        if options.retry is not None:
            _refuse_surplus(parser, options, "retry", [])
            return _retry(options.retry, given)
        if options.task is None or options.config is None:
            parser.error("--task and --config are needed (or --status, or --retry)")
        return _submit(options, given)

    return exit_code(command)


def _parser() -> argparse.ArgumentParser:
    command = "python -m tools.submit --task classification --config run.yaml"
    parser = command_parser(
        "python -m tools.submit",
        "Queues a training, or one for each combination of swept values, and returns at once. A copy of the code is "
        "made, so that later edits do not change what waits.",
        [
            f"{command} --gpus-per-node 4 --time 12:00:00 --partition gpu",
            f"{command} --array-parallelism 4 --sweep optimizer.lr=1e-4,3e-4 --sweep model.drop_path=0.1,0.2",
            f"{command} --seeds 5",
            f"{command} --cluster local --gpus-per-node 0",
            "python -m tools.submit --status",
            "python -m tools.submit --retry experiments/experiment_0007",
        ],
    )
    tasks = f"what is trained: {', '.join(known_tasks())}, or a package of your own"
    parser.add_argument("--task", metavar="TASK", help=tasks)
    parser.add_argument("--config", type=Path, metavar="FILE", help="the run's configuration")
    parser.add_argument("--cluster", choices=("slurm", "local", "debug"), help="where to (default: slurm)")
    parser.add_argument("--name", default="", help="the experiment's name")
    parser.add_argument(
        "--sweep", action="append", default=[], metavar="key.path=a,b,c", help="one run a value; may be repeated"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="N runs of each, with seeds from experiment.seed on")
    for name, how in OPTIONS.items():
        parser.add_argument(flag(name), **how)
    parser.add_argument(
        "--slurm", action="append", type=_option, metavar="OPTION=VALUE", help="any other option of sbatch, without --"
    )
    looks = parser.add_mutually_exclusive_group()
    looks.add_argument(
        "--status", nargs="*", type=Path, metavar="DIR", help="how the runs in DIR (default: experiments) are doing"
    )
    looks.add_argument("--retry", nargs="*", type=Path, metavar="DIR", help="queue again what stopped unfinished there")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="settings that win over the file's")
    return parser


def _refuse_surplus(
    parser: argparse.ArgumentParser, options: argparse.Namespace, what: str, unread: Sequence[str]
) -> None:
    """Ends with exit code 2 where something is given that ``what``, which takes folders, would leave unread."""
    surplus = [
        f"--{name}" for name in ("task", "config", "cluster", "name", "sweep", "seeds") if getattr(options, name)
    ]
    surplus += [flag(name) for name in unread] + options.overrides
    surplus += [str(path) for path in getattr(options, what) if "=" in path.name and not path.exists()]
    if surplus:
        parser.error(f"--{what} does without {', '.join(surplus)}")


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.removeprefix("--").partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form OPTION=VALUE")
    if name.replace("-", "_") in OPTIONS:
        raise argparse.ArgumentTypeError(f"'{text}': use {flag(name)}")
    if name in OWN:
        raise argparse.ArgumentTypeError(f"'{text}': --{name} is what tools.submit itself decides")
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} has characters that no option takes")
    return name, value


def _submit(options: argparse.Namespace, given: dict[str, Any]) -> int:
    from tools.submit.local_devices import default_gpus
    from tools.submit.submission import check_batches, debug, resolve, seeds_from, submit
    from tools.submit.sweep import combinations

    cluster = options.cluster or "slurm"
    check_known(cluster, given)
    overrides, sweeps = options.overrides, options.sweep
    if options.seeds is not None:
        if options.seeds < 1 or any(sweep.partition("=")[0] == "experiment.seed" for sweep in sweeps):
            raise UserError(f"--seeds {options.seeds}: at least 1, and without --sweep experiment.seed")
        overrides, seeds = seeds_from(options.task, options.config, overrides, options.seeds)
        sweeps = [*sweeps, seeds]
    configs = resolve(options.task, options.config, overrides, sweeps, options.name)
    device = configs[0].distributed.device
    if cluster == "local":
        given.setdefault("gpus_per_node", default_gpus(device))
    resources = check(Resources(**given))
    if device == "cpu" and resources.gpus_per_node and cluster != "debug":
        print("distributed.device: cpu leaves the job's GPUs idle; --gpus-per-node 0 asks for none", file=sys.stderr)
    if cluster == "local" and len(configs) > 1:
        print(f"--cluster local starts all {len(configs)} runs at once", file=sys.stderr)
    if cluster == "debug":
        if len(configs) > 1:
            raise UserError("--cluster debug: runs one job in this process; leave --sweep and --seeds away")
        debug(options.task, configs[0])
    check_batches(configs, resources)
    swept = combinations(sweeps, find_spec(options.task).schema())
    _report(submit(options.task, configs, swept, cluster, resources))
    return 0


def _report(submitted: Sequence[Submitted]) -> None:
    """Reports what was queued, where its output goes, and how to follow and to cancel it."""
    for each in submitted:
        swept = "  " + " ".join(each.note.swept) if each.note.swept else ""
        print(f"{shown(each.folder.path)}  job {each.note.job}{swept}")
        print(f"  devices: {each.devices}")
        print(f"  output: {shown(Path(each.note.log))}")
        print(f"  log:    {shown(each.folder.log_file(0))}")
    jobs = dict.fromkeys(each.note.job.partition("_")[0] for each in submitted)
    end = "scancel" if submitted[0].note.cluster == "slurm" else "kill"
    status = command("python", "-m", "tools.submit", "--status", *(each.folder.path for each in submitted))
    print(f"status: {status}")
    print(f"cancel: {command(end, *jobs)}")


def _views(places: Sequence[Path]) -> list[View]:
    """Looks how the runs in ``places`` are doing; says so if that is not known of all."""
    from tools.submit.overview import find_runs, look, slurm_queue

    queued = slurm_queue()
    views = [look(run, queued) for run in find_runs(places or [Path("experiments")])]
    if queued is None and any(view.in_slurm for view in views):
        print("Slurm does not answer (squeue): which of its jobs wait or run is not known", file=sys.stderr)
    return views


def _resume(view: View) -> str:
    """Returns the command that goes on with a run as it was started, by its README.md."""
    for line in view.folder.readme.read_text(encoding="utf-8").splitlines() if view.folder.readme.is_file() else []:
        if " --resume " in line:
            return line
    return f"--resume {shown(view.folder.path)}"


def _retry(places: Sequence[Path], given: dict[str, Any]) -> int:
    from tools.submit.retry import retry

    check(Resources(**given))
    submitted, foreign = retry(_views(places), given)
    for view in foreign:
        place = shown(view.folder.path)
        print(f"{place}: {view.state}, but not submitted here; start it with: {_resume(view)}", file=sys.stderr)
    if submitted:
        _report(submitted)
    elif not foreign:
        print("nothing to retry: everything here is finished, runs or waits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
