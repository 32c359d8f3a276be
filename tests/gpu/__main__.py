"""``python -m tests.gpu [--device cuda|cpu] [--json FILE]``: everything that only a GPU shows, in about five minutes.

``make test-gpu`` runs it. Each stage is a process of its own with a time limit: one that fails, crashes or hangs keeps
none of the others from running. A table at the end says what passed, how long it took, what was measured and, with the
end of its output, what was wrong. One card is used, the first that is visible, also in a job of Slurm. SIGTERM and
Ctrl-C kill the stages that run; the table then shows what was known, and the exit code is 75, or 130 for Ctrl-C.

With ``--device cpu`` the same code runs on small models and images, a rehearsal without a GPU: nothing that it
measures means anything.

On a machine with torch but neither a network nor all that the suite needs, bring the rest along as wheels, made where
there is a network (4 MB)::

    python -m tools.wheels --python 3.12 --output dist/wheels
    # and there, in the clone:
    python -m pip install --no-index --no-deps --target dist/site dist/wheels/*.whl
    PYTHONPATH=$PWD/dist/site python -m tests.gpu --json gpu.json

``pytest -m gpu`` runs the stages as tests. Their list is in stages.py.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from engine.commands.arguments import command_parser
from engine.errors import EXIT_INTERRUPTED, UserError
from engine.files import check_writable
from engine.process.signals import StopRequest
from tests.gpu.runner import Result, run_stages, table, write_json
from tests.gpu.stages import STAGES

NO_GPU = "torch sees no GPU here"


def main(arguments: list[str] | None = None, stop: StopRequest | None = None) -> int:
    """Runs the stages that the command line names.

    Args:
        stop: set by the process's signal handlers, if it has any.

    Returns:
        0 if all of them passed, or no GPU is to be had here; 75 where a signal came first, 130 for Ctrl-C; else 1.
    """
    stop = StopRequest() if stop is None else stop  # one that nothing has set is false
    names = [stage.name for stage in STAGES]
    parser = command_parser(
        "python -m tests.gpu",
        "Checks on one card what only a GPU shows, in stages, and ends with a table of them.",
        ["python -m tests.gpu --json gpu.json", "python -m tests.gpu --stages attention hang --output stages"],
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal, small (default: cuda)"
    )
    parser.add_argument("--stages", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--within", type=float, default=480.0, metavar="S", help="seconds for all stages (default: 480)"
    )
    parser.add_argument("--jobs", type=_count, default=jobs(), metavar="N", help="stages at once that measure no time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE, as it is found")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep what each stage printed (default: nowhere)")
    options = parser.parse_args(arguments)
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    if options.json is not None and options.json.is_dir():
        parser.error(f"--json: {options.json} is a folder; name a file")
    try:
        for option, folder in (("--json", options.json and options.json.parent), ("--output", options.output)):
            if folder is not None:
                check_writable(folder, option)
    except UserError as error:
        parser.error(str(error))
    if options.device == "cuda" and not gpu_visible():
        from engine.distributed.connect import unseen_gpus

        if fault := unseen_gpus(os.environ):  # the commonest failure of all, in a job that was given a GPU
            result = Result("environment", "failed", faults=[fault])
            print(table([result]))
            if options.json is not None:
                write_json(options.json, options.device, [result])
            return 1
        print(f"skipped: {NO_GPU}; --device cpu rehearses the stages without one")
        return 0
    known: list[Result] = []

    def write(results: list[Result]) -> None:
        if options.json is not None:
            write_json(options.json, options.device, results)

    def tell(result: Result) -> None:
        known.append(result)
        print(f"{result.stage}: {result.outcome} after {result.seconds:.1f} s", flush=True)
        write(known)

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = [stage for stage in STAGES if stage.name in options.stages]
        results = run_stages(chosen, options.device, folder, options.within, options.jobs, tell, stop)
        write(results)
    print("", table(results), sep="\n")
    if stop.signal is not None:
        return 128 + signal.SIGINT if stop.signal == signal.SIGINT else EXIT_INTERRUPTED
    return 0 if all(result.outcome == "passed" for result in results) else 1


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is wanted, not {text!r}")
    return int(text)


def jobs() -> int:
    """Returns how many stages the cores of this machine let run at once: each has data workers of its own."""
    return max(1, min(4, len(os.sched_getaffinity(0)) // 4))


def gpu_visible() -> bool:
    """Returns whether torch, if it can be imported at all, sees a GPU."""
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main(stop=StopRequest().install()))
