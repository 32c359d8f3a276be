"""Start of every command that trains: signals first, then arguments, and only then the heavy imports."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.commands.arguments import EvaluateArguments, parse_evaluate_arguments, parse_train_arguments
from engine.errors import EXIT_USER_ERROR, UserError
from engine.process.descriptors import raise_descriptor_limit
from engine.process.signals import StopRequest
from engine.process.start_guard import StartGuard

if TYPE_CHECKING:
    from engine.commands.train import TaskKind
    from engine.config.run import RunConfig


def train(task: str, load_schema: Callable[[], type[RunConfig]], load_task: Callable[[], TaskKind]) -> None:
    """Runs ``python -m TASK.train`` and exits with the code of its outcome (see README.md).

    Both loaders import what they return, and are called after the signal handlers stand: first that of the type of the
    configuration, which has to be quick (no torch), so that a mistake in the configuration is reported at once.
    """
    stop = StopRequest().install()
    guard = StartGuard(stop)
    arguments = parse_train_arguments(task, sys.argv[1:], load_schema)

    def command() -> int:
        from engine.commands.resume import requested_config

        config = requested_config(load_schema(), arguments)
        if arguments.print_config is not None:
            return print_config(config, arguments.print_config)

        from engine.commands.train import run_training

        return run_training(load_task(), arguments, stop, guard)

    exit_on_user_error(command)


def evaluate(
    task: str, load_schema: Callable[[], type[RunConfig]], load_run: Callable[[], Callable[[EvaluateArguments], int]]
) -> None:
    """Runs ``python -m TASK.evaluate`` and exits with the code of its outcome.

    Args:
        load_schema: Imports the type of the configuration, without torch, so that mistakes are reported first.
        load_run: Imports what evaluates and returns the exit code.
    """
    arguments = parse_evaluate_arguments(task, sys.argv[1:])

    def command() -> int:
        from engine.run_folder.used_config import used_config

        used_config(arguments.experiment, load_schema(), arguments.overrides)
        return load_run()(arguments)

    exit_on_user_error(command)


def print_config(config: RunConfig, form: str) -> int:
    """Prints a configuration as ``yaml`` or ``json``, from rank 0 alone."""
    if first_rank():
        from engine.config.load import dump_config

        print(dump_config(config) if form == "yaml" else config.model_dump_json(indent=2) + "\n", end="")
    return 0


def first_rank() -> bool:
    """Whether this process is the one whose messages count, as far as can be told before the ranks have met."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def wait_politely() -> None:
    """Lets the threads of a CPU operator wait for each other asleep after some microseconds, not spinning for long.

    GNU OpenMP's default is right for cores that nobody else uses. Where a core is shared, with a data worker or
    another job, a spinning thread keeps the one that it waits for from running: on two cores with one competitor, a
    step of the digits' Swin took 4 s instead of 0.3 s. On idle cores it costs that smallest of models 12 %.
    Only works before torch is imported; a user's own choice stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def exit_on_user_error(command: Callable[[], int]) -> None:
    """Runs a command that imports torch itself and exits with its code, see :func:`exit_code`."""
    wait_politely()
    raise_descriptor_limit()
    sys.exit(exit_code(command))


def exit_code(command: Callable[[], int]) -> int:
    """Returns what ``command`` returns; a :class:`UserError` becomes one message of rank 0 and the code 2."""
    try:
        return command()
    except UserError as error:
        if first_rank():
            sys.stderr.write(f"error: {error}\n")  # in one piece: srun writes there too
        return EXIT_USER_ERROR
