"""``python -m tools.chaos [--task TASK] --config FILE [--ranks N] --kills N [key.path=value ...]``; see ``--help``."""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.errors import UserError
from engine.task.other_tasks import task_of
from engine.task.spec import find_spec
from tools.chaos.plan import plan_kills
from tools.chaos.rounds import Run, RunFailed, Struck, run_in_peace, run_under_fire

RUNS = ("reference", "killed")
"""Folders of the two runs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for. Returns 0 if every bit is the same, 1 if not, 2 for wrong input."""
    options = _parser().parse_intermixed_args(arguments)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it says of each restart what it purged
    return exit_code(lambda: _compare(options, _folder(options.output)))


def _compare(options: argparse.Namespace, folder: Path) -> int:
    same = _chaos(options, folder)
    if same and not options.keep:
        for part in RUNS:
            shutil.rmtree(folder / part)
        if options.output is None:
            folder.rmdir()
    else:
        print(f"\nboth runs, with the output and the samples of each start: {folder}")
    return 0 if same else 1


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "python -m tools.chaos",
        "Trains a model twice, once in peace and once killed at random and resumed, again and again, and compares "
        "everything that is left behind. Exits with 0 if every bit is the same, with 1 if not.",
        ["python -m tools.chaos --config configs/classification/chaos.yaml --ranks 2 --kills 10"],
    )
    parser.add_argument(
        "--task", metavar="TASK", help="what is trained (default: the task that can read the configuration)"
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's configuration")
    parser.add_argument(
        "--ranks", type=_count, default=1, metavar="N", help="processes, started by torchrun (default: 1)"
    )
    parser.add_argument("--kills", type=_count, required=True, metavar="N", help="how often the run is killed")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides what is killed when (default: 0)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where both runs are kept (default: a temporary folder)"
    )
    parser.add_argument("--keep", action="store_true", help="keep them even if they are the same")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="settings that win over the file's")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _folder(output: Path | None) -> Path:
    if output is None:
        return Path(tempfile.mkdtemp(prefix="chaos_"))
    taken = [name for name in RUNS if (output / name).exists()]
    if taken:
        raise UserError(f"--output {output}: holds a {taken[0]} run already; remove it or choose another folder")
    return output


def _chaos(options: argparse.Namespace, folder: Path) -> bool:
    """Makes both runs and compares them, telling as it goes; returns whether all is the same."""
    task = find_spec(options.task).name if options.task else task_of(options.config, options.overrides)
    reference, killed = (Run(folder / name, task, options.config, options.overrides, options.ranks) for name in RUNS)
    begin = time.monotonic()
    try:
        pace = run_in_peace(reference)
    except RunFailed as error:
        raise UserError(f"the run fails even when it is left in peace: {error}") from None
    steps = (reference.diaries()[0].step or 0) + 1
    kills = plan_kills(options.kills, steps, pace.seconds_per_step, options.seed)
    print(
        f"reference: {steps} steps on {options.ranks} rank(s); {pace.seconds_to_first_step:.1f} s to the first step, "
        f"then {1000 * pace.seconds_per_step:.0f} ms a step\nseed {options.seed}, {len(kills)} kills\n",
        flush=True,
    )

    from tools.chaos.report import HEAD, check_kills, check_results, kill_line

    print(HEAD)
    struck, failure = list[Struck](), None
    try:
        for each in run_under_fire(killed, kills, pace):
            struck.append(each)
            print(kill_line(len(struck), each), flush=True)
    except RunFailed as error:
        failure = str(error)
    checks = check_kills(struck, failure, len(kills))
    if failure is None:
        checks += check_results(reference, killed)
    print("", *checks, sep="\n")
    faults = sum(check.fault is not None for check in checks)
    print(f"\n{faults or 'no'} fault(s) after {len(struck)} kills in {time.monotonic() - begin:.0f} s")
    return faults == 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # leaves no process behind
    sys.exit(main())
