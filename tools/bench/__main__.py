"""``python -m tools.bench NAME|all [--json FILE] [--quick]``: measures and prints tables."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code, wait_politely
from engine.errors import UserError
from engine.process.signals import end_with_parent

MODULES = {
    "swin": ["swin"],
    "step": ["step"],
    "detection": ["detection", "detection_step", "coco"],
    "diffusion": ["diffusion"],
    "checkpoint": ["checkpoint"],
    "resume": ["resume"],
    "compare": ["compare"],
    "loader": ["data.loader", "data.start", "data.many"],
    "export": ["export"],
}
"""Modules of each benchmark, which have ``run(quick) -> Table``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line names and returns the exit code."""
    parser = command_parser(
        "python -m tools.bench",
        "Measures our speed beside that of peers, which take turns within one run (docs/benchmarks.md).",
        ["python -m tools.bench step", "python -m tools.bench all --quick --json bench.json"],
    )
    parser.add_argument("name", choices=[*MODULES, "all"], help="what to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to FILE")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few rounds, to see that it runs")
    options = parser.parse_args(arguments)
    return exit_code(lambda: bench(options.name, options.json, options.quick))


def bench(name: str, file: Path | None, quick: bool) -> int:
    """Prints the tables of a benchmark, each measured in a process of its own that is set up as one that trains.

    Raises:
        UserError: the samples cannot be written to ``file``.
    """
    if file is not None and not file.parent.is_dir():
        raise UserError(f"--json {file}: there is no folder {file.parent}")
    from tools.bench.timing import run_benchmark

    tables = []
    for module in [*itertools.chain(*MODULES.values())] if name == "all" else MODULES[name]:
        # Threads are told how to wait before the function, and with it torch, is imported there.
        with ProcessPoolExecutor(1, get_context("spawn"), initializer=wait_politely) as apart:
            apart.submit(end_with_parent)
            table = apart.submit(run_benchmark, module, quick).result()
        print(table.text(), flush=True)
        tables.append(table.as_dict())
    if file is not None:
        file.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
