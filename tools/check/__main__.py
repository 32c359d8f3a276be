"""``python -m tools.check --task TASK --config FILE [key.path=value ...]``: what would stop a run, before it starts."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.commands.entry import exit_code
from engine.config.load import load_config
from engine.errors import EXIT_USER_ERROR

TASKS = ("classification", "detection")


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks settings and data and prints what it finds. Returns 0, or 2 if training would refuse to start."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m tools.check",
        description="Reads a run's configuration and looks at its data and weights; builds and trains nothing.",
    )
    parser.add_argument("--task", choices=TASKS, required=True, help="what is to be trained")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's configuration")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="settings that win over the file's")
    options = parser.parse_intermixed_args(arguments)
    return exit_code(lambda: check(options.task, options.config, options.overrides))


def check(task: str, config_file: Path, overrides: Sequence[str]) -> int:
    """The check itself; a mistake in keys, types or what does not go together is raised as a UserError."""
    schema = importlib.import_module(f"{task}.train").schema()
    config = load_config(schema, config_file, overrides)
    print(f"configuration: {config_file}: keys and types are right")

    from tools.check.data import check_data
    from tools.check.settings import check_settings

    found = [check_settings(config), check_data(task, config)]
    for checked in found:
        for line in checked.lines:
            print(f"data: {line}")
        for warning in checked.warnings:
            print(f"warning: {warning}")
        for error in checked.errors:
            print(f"error: {error}", file=sys.stderr)
    return EXIT_USER_ERROR if any(checked.errors for checked in found) else 0


if __name__ == "__main__":
    sys.exit(main())
