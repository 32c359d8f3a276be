"""``python -m tools.search --task TASK --config FILE --space FILE``: looks for the best settings; see ``--help``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.config.load import differences, is_below, load_config
from engine.config.run import FREE, RunConfig
from engine.errors import UserError
from engine.files import command, read_json, shown, write_json
from engine.run_folder.paths import RunDir
from engine.run_folder.status import Status, read_status
from engine.run_folder.writer_lock import RunLock, live_writer
from engine.task.spec import find_spec, known_tasks
from tools.submit.resources import OPTIONS, Resources, check, check_known, flag

PLACE = ".search"
"""Beside the experiments: a folder for each search."""
ASKED = "search.json"
TRIALS = 20
POLL = {"slurm": 10.0, "local": 1.0}
"""Seconds between looks at the trials."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Searches, or tells how a search is doing. Returns 0, or 2 for input that is wrong."""
    options = _parser().parse_intermixed_args(arguments)
    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    return exit_code(lambda: search(options, given))


def _parser() -> argparse.ArgumentParser:
    start = "python -m tools.search --task classification --config run.yaml --space space.yaml"
    parser = command_parser(
        "python -m tools.search",
        "Looks for the best settings with Optuna. Each trial is an experiment, queued as an array task of Slurm or run "
        "here; poor ones are pruned. The same command goes on with a search that was stopped or killed.",
        [
            f"{start} --trials 40 --parallel 8 --gpus-per-node 1 --time 4:00:00",
            f"{start} --cluster local --gpus-per-node 0",
            f"{start} --status",
        ],
    )
    tasks = f"what is trained: {', '.join(known_tasks())}, or a package of your own"
    parser.add_argument("--task", required=True, metavar="TASK", help=tasks)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the trials' common configuration")
    parser.add_argument("--space", type=Path, required=True, metavar="FILE", help="ranges, sampler and pruner")
    parser.add_argument("--trials", type=int, default=TRIALS, metavar="N", help=f"trials in all (default: {TRIALS})")
    parser.add_argument("--parallel", type=int, default=1, metavar="K", help="most trials at once (default: 1)")
    parser.add_argument("--name", default="", help="the search's name (default: that of its file of ranges)")
    parser.add_argument("--cluster", choices=("slurm", "local"), default="slurm", help="where to (default: slurm)")
    parser.add_argument("--status", action="store_true", help="show its trials, and do nothing else")
    for name, how in OPTIONS.items():
        if name != "array_parallelism":  # which is --parallel
            parser.add_argument(flag(name), **how)
    parser.set_defaults(array_parallelism=None)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="settings of all trials")
    return parser


def search(options: argparse.Namespace, given: dict[str, Any]) -> int:
    """Begins the search that the options describe, or goes on with it; ``--status`` shows it.

    Raises:
        UserError: settings, ranges or resources are wrong; or it was begun with others.
    """
    from tools.search.space import check_space, read_space
    from tools.submit.submission import check_batches, resolve

    name = options.name or options.space.stem
    if name in (".", "..") or "/" in name:
        raise UserError(f"--name: {name!r} is no name of a folder")
    spec = find_spec(options.task)
    space = read_space(options.space)
    if options.status:  # which needs neither the data nor a folder that can be written
        config = load_config(spec.schema(), options.config, options.overrides)
        return _show(config.experiment.root / PLACE / name, space, *spec.metrics(config).deciding(config))
    config = resolve(options.task, options.config, options.overrides, [], "")[0]
    metric, direction = spec.metrics(config).deciding(config)
    root = config.experiment.root
    folder = root / PLACE / name
    for count in ("trials", "parallel"):
        if getattr(options, count) < 1:
            raise UserError(f"--{count}: must be 1 or more, not {getattr(options, count)}")
    check_known(options.cluster, given)
    if options.cluster == "local":
        from tools.submit.local_devices import default_gpus

        given.setdefault("gpus_per_node", default_gpus(config.distributed.device))
    resources = check(Resources(**given))
    check_batches([config], resources)
    check_space(space, spec.schema(), options.config, options.overrides, options.space)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{shown(folder)} cannot be made: {error.strerror}") from None
    with _only_writer(RunDir(folder)):
        _same_search(folder, options.task, config, space)
        return _search(options, folder, space, root, (metric, direction), resources)


@contextlib.contextmanager
def _only_writer(folder: RunDir) -> Iterator[None]:
    """Makes this process the one that writes in a search's folder, and has status.json there say that it lives.

    Raises:
        UserError: another process does.
    """
    lock, state = RunLock(folder, patience=2.0), "failed"
    status = Status(folder.status)
    try:
        yield
        state = "finished"
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        status.close(state)
        lock.release()


def _search(
    options: argparse.Namespace, folder: Path, space: Any, root: Path, decides: tuple[str, Any], resources: Resources
) -> int:
    from tools.search.loop import Search
    from tools.search.report import table, write_results
    from tools.search.runs import Runs
    from tools.search.trials import Trials

    metric, direction = decides
    trials = Trials.open(folder, space, direction)
    runs = Runs(options.task, options.config, options.overrides, folder.name, root, options.cluster, resources)
    most = space.combinations()
    count = options.trials if most is None else min(options.trials, most)
    if known := len(trials.all()):
        print(f"{shown(folder)}: goes on after {known} trials")
    loop = Search(trials, runs, metric, direction, lambda line: print(line, flush=True))
    try:
        loop.run(count, options.parallel, POLL[options.cluster])
    except KeyboardInterrupt:
        print("\ntrials that run go on; the same command follows them and goes on with the search")
        raise
    print(table(trials, root, metric))
    for file in write_results(trials, folder, root, metric):
        print(shown(file))
    print(f"compare: {command('python', '-m', 'tools.compare', root, '--sort', metric)}")
    return 0


def _show(folder: Path, space: Any, metric: str, direction: Any) -> int:
    from tools.search.report import table
    from tools.search.trials import JOURNAL, Trials

    root = folder.parent.parent
    if not (folder / JOURNAL).is_file():
        raise UserError(f"--status: there is no search {folder.name} below {root}; --name names another")
    print(table(Trials.open(folder, space, direction, write=False), root, metric))
    print(f"search: {_state(RunDir(folder))}")
    return 0


def _state(folder: RunDir) -> str:
    """Says whether a search is under way."""
    if (writer := live_writer(folder)) is not None:
        return f"runs, process {writer.pid} of this machine"
    state = (read_status(folder.status) or {}).get("state", "not begun")
    if state == "running":
        return "was killed, or runs on another machine; without --status the same command goes on with it"
    return state if state == "finished" else f"{state}; without --status the same command goes on with it"


def _same_search(folder: Path, task: str, config: RunConfig, space: Any) -> None:
    """Notes what is searched; where a search goes on, makes sure that it is the same.

    Raises:
        UserError: it is not; with what differs.
    """
    asked = {"task": task, "config": config.model_dump(mode="json"), "space": space.model_dump(mode="json")}
    asked = json.loads(json.dumps(asked))
    before = read_json(folder / ASKED)
    if before is None:
        write_json(folder / ASKED, asked)
        return
    changes = [
        f"{key.removeprefix('config.')}: {old} -> {new}"
        for key, old, new in differences(before, asked)
        if not is_below(key.removeprefix("config."), FREE)
    ]
    if changes:
        told = "; ".join(changes[:8])
        raise UserError(f"{shown(folder)} was begun with other settings: {told}; --name NAME begins another search")


if __name__ == "__main__":
    sys.exit(main())
