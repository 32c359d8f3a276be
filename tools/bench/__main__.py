"""``python -m tools.bench NAME|all [--json FILE] [--quick]``: measures and prints tables."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import sys
from pathlib import Path

from engine.errors import EXIT_USER_ERROR, UserError

MODULES = {
    "swin": ["swin"],
    "step": ["step"],
    "detection": ["detection", "detection_step", "coco"],
    "checkpoint": ["checkpoint"],
    "resume": ["resume"],
}
"""Each benchmark's modules, which have ``run(quick) -> Table``; imported when they are asked for."""


def main(arguments: list[str] | None = None) -> int:
    """Runs what the command line names and returns the exit code."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, prog="python -m tools.bench", description="Our speed beside that of the peers."
    )
    parser.add_argument("name", choices=[*MODULES, "all"], help="what to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to FILE")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and few rounds, to see that it runs")
    options = parser.parse_args(arguments)
    modules = [*itertools.chain(*MODULES.values())] if options.name == "all" else MODULES[options.name]
    try:
        if options.json is not None and not options.json.parent.is_dir():
            raise UserError(f"--json {options.json}: there is no folder {options.json.parent}")
        tables = []
        for module in modules:
            table = importlib.import_module(f"tools.bench.{module}").run(quick=options.quick)
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
