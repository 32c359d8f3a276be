"""``python -m tools.bench NAME|all [--json FILE] [--quick]``: measures and prints tables."""

from __future__ import annotations

import ast
import itertools
import json
import re
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
"""Modules of each benchmark, which have ``run(quick) -> Table`` and say in their docstring what they measure."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line names and returns the exit code."""
    parser = command_parser(
        "python -m tools.bench",
        "Measures our speed beside that of peers, which take turns within one run (docs/benchmarks.md).",
        ["python -m tools.bench step", "python -m tools.bench all --quick --json bench.json"],
    )
    named = [text for text in (sys.argv[1:] if arguments is None else arguments) if text in MODULES]
    parser.epilog = f"{parser.epilog}\n\n{what_is_measured(named)}"
    parser.add_argument("name", choices=[*MODULES, "all"], help="what to measure; NAME --help says more of it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to FILE")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few rounds, to see that it runs")
    options = parser.parse_args(arguments)
    return exit_code(lambda: bench(options.name, options.json, options.quick))


def what_is_measured(names: Sequence[str]) -> str:
    """Returns what the modules of benchmarks say of themselves; without names, the first line of each benchmark."""
    if names:
        return "\n\n".join(_own_words(module) for name in names for module in MODULES[name])
    lines = (f"  {name:11} {_own_words(modules[0]).splitlines()[0]}" for name, modules in MODULES.items())
    return "\n".join(["what they measure:", *lines])


def _own_words(module: str) -> str:
    """Returns a module's docstring without importing it, which takes seconds; names in it lose their markup."""
    tree = ast.parse((Path(__file__).parent / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    return re.sub(r":\w+:`([^`]*)`", r"\1", ast.get_docstring(tree) or "")


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
