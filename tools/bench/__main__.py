"""``python -m tools.bench NAME|all [--json FILE] [--quick]``: measures and prints tables."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from engine.errors import EXIT_USER_ERROR, UserError

MODULES = {name: f"tools.bench.{name}" for name in ("swin", "step", "detection", "checkpoint", "resume")}
"""Each benchmark's module, which has ``run(quick) -> Table``; imported when it is asked for."""


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line names and returns the exit code."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m tools.bench", description="Our speed beside that of the peers."
    )
    parser.add_argument("name", choices=[*MODULES, "all"], help="what to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to FILE")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few rounds, to see that it runs")
    options = parser.parse_args(arguments)
    names = list(MODULES) if options.name == "all" else [options.name]
    try:
        if options.json is not None and not options.json.parent.is_dir():
            raise UserError(f"--json {options.json}: there is no folder {options.json.parent}")
        tables = []
        for name in names:
            table = importlib.import_module(MODULES[name]).run(quick=options.quick)
            print(table.text(), flush=True)
            tables.append(table.as_dict())
        if options.json is not None:
            options.json.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
