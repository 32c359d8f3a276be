"""``python -m tools.check --task TASK --config FILE [key.path=value ...]``: what would stop a run, before it starts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.commands.arguments import command_parser
from engine.commands.entry import exit_code
from engine.config.load import emptied, load_config
from engine.config.run import RunConfig
from engine.distributed.layout import Layout
from engine.errors import EXIT_USER_ERROR, UserError
from engine.files import check_writable
from engine.log import setup_logging
from engine.task.preflight import Checked, refusals
from engine.task.spec import TaskSpec, find_spec, known_tasks


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks settings and data and prints what it finds. Returns 0, or 2 if training would refuse to start."""
    parser = command_parser(
        "python -m tools.check",
        "Reads a run's configuration and looks at its data and weights; builds and trains nothing. Exits with 2 if "
        "training would refuse to start.",
        ["python -m tools.check --task classification --config run.yaml data.root=/scratch/shop"],
    )
    tasks = f"what is to be trained: {', '.join(known_tasks())}, or a package of your own"
    parser.add_argument("--task", required=True, metavar="TASK", help=tasks)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's configuration")
    parser.add_argument(
        "--login-node", action="store_true", help="warn of what this machine lacks: the run will be on another"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="settings that win over the file's")
    options = parser.parse_intermixed_args(arguments)
    return exit_code(lambda: check(options.task, options.config, options.overrides, options.login_node))


def check(task: str, config_file: Path, overrides: Sequence[str], login_node: bool = False) -> int:
    """Checks a run; a mistake in keys, types or what does not go together is raised as a UserError."""
    spec = find_spec(task)
    config = load_config(spec.schema(), config_file, overrides)
    print(f"configuration: {config_file}: keys and types are right")
    for line in emptied(overrides, spec.schema()):
        print(line)

    code = 0
    with setup_logging(0, 1):  # what a look at the data tells
        found = [check_settings(spec, config, login_node), *look(spec, config)]
    for checked in found:
        for line in checked.lines:
            print(f"data: {line}")
        for warning in checked.warnings:
            print(f"warning: {warning}")
        for error in checked.errors:
            print(f"error: {error}", file=sys.stderr)
            code = EXIT_USER_ERROR
    print("verdict: training would refuse to start" if code else "verdict: nothing found that would stop the run")
    return code


def check_settings(spec: TaskSpec, config: RunConfig, login_node: bool) -> Checked:
    """Asks the checks that training makes. What a ``login_node`` lacks, such as a GPU, is a warning, else an error."""
    from engine.distributed.connect import choose_device
    from engine.model.pretrained import weights_file
    from engine.model.wrap import check_sync_batchnorm

    wanted, weights = config.distributed, config.finetune.weights
    errors = refusals(
        lambda: check_writable(config.experiment.root),
        lambda: isinstance(weights, Path) and weights_file(weights),
        lambda: spec.metrics(config).deciding(config),
    )
    lacking = refusals(lambda: check_sync_batchnorm(wanted, choose_device(wanted, Layout())))
    if login_node:
        return Checked(warnings=[f"on this machine: {line}" for line in lacking], errors=errors)
    errors += [f"{line}; --login-node if the run will be on another machine" for line in lacking]
    return Checked(errors=errors)


def look(spec: TaskSpec, config: RunConfig) -> Iterator[Checked]:
    """Yields what the task finds in settings and data. What is not there at all is an error among the others."""
    try:
        yield from spec.preflight(config)
    except UserError as error:
        yield Checked(errors=str(error).splitlines())


if __name__ == "__main__":
    sys.exit(main())
