"""Start of every command: signals first, then arguments, and only then the heavy imports."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any

from engine.commands.arguments import parse_evaluate_arguments, parse_predict_arguments, parse_train_arguments
from engine.errors import NO_ROOM, UserError, in_a_line
from engine.process.descriptors import open_standard_streams, raise_descriptor_limit
from engine.process.signals import STOP_SIGNALS, StopRequest
from engine.process.start_guard import StartGuard
from engine.process.temporary import prepare_temporary_folder
from engine.task.spec import Later, TaskSpec

PREDICTION = Later("engine.commands.predict:run_prediction")
"""Takes an exported model as well as an experiment."""


def train(spec: TaskSpec) -> None:
    """Runs ``python -m TASK.train`` and exits with the code of its outcome (see README.md).

    After the signal handlers stand, the configuration is read, which has to be quick (no torch), so that a mistake in
    it is reported at once.
    """
    open_standard_streams()
    stop = StopRequest(answers=first_rank()).install()
    guard = StartGuard(stop)
    arguments = parse_train_arguments(spec.name, sys.argv[1:], spec.schema)
    if arguments.dry_run:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # there is nothing to save: it ends at once

    def command() -> int:
        from engine.commands.resume import requested_config
        from engine.config.load import dump_config

        config = requested_config(spec.schema(), arguments)
        if arguments.print_config is not None:
            if first_rank():
                as_json = arguments.print_config == "json"
                print(config.model_dump_json(indent=2) + "\n" if as_json else dump_config(config), end="")
            return 0
        spec.metrics(config).deciding(config)

        from engine.commands.train import run_training

        return run_training(spec, arguments, stop, guard)

    exit_on_user_error(command)


def evaluate(spec: TaskSpec) -> None:
    """Runs ``python -m TASK.evaluate`` and exits with the code of its outcome."""
    arguments = parse_evaluate_arguments(spec.name, sys.argv[1:], spec.schema)
    use_trained_model(spec, arguments, Later("engine.commands.evaluate:run_evaluation"))


def predict(spec: TaskSpec, description: str, add_arguments: Callable[[ArgumentParser], None]) -> None:
    """Runs ``python -m TASK.predict`` and exits with the code of its outcome.

    ``add_arguments`` adds ``--output`` and what else the command takes.
    """
    arguments = parse_predict_arguments(spec.name, description, add_arguments, sys.argv[1:], spec.schema)
    use_trained_model(spec, arguments, PREDICTION)


def use_trained_model(spec: TaskSpec, arguments: Any, run: Later) -> None:
    """Runs a command that uses a trained model and exits with the code of its outcome.

    Its settings are read first, so that a mistake is told before torch is there.

    Args:
        spec: The task.
        arguments: What the user typed: ``experiment``, ``checkpoint``, ``overrides`` and more.
        run: Is called with both, and returns the exit code.
    """

    def command() -> int:
        from engine.run_folder.used_config import is_exported, require_exported, used_config

        if spec.deployed is not None and run is PREDICTION and is_exported(arguments.experiment):
            require_exported(arguments.experiment, arguments.overrides, arguments.checkpoint)
        else:
            used_config(arguments.experiment, spec.schema(), arguments.overrides)
        return int(run(spec, arguments))

    exit_on_user_error(command)


def first_rank() -> bool:
    """Tells whether this process is the one whose messages count, as far as can be told before the ranks have met."""
    names = ("SUBMITIT_LOCAL_GLOBALID", "RANK", "SLURM_PROCID")
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"


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
    code = exit_code(command)
    for number in {*STOP_SIGNALS} - {signal.SIGINT}:
        if callable(signal.getsignal(number)):  # Python's last act is to give them back to the system, which would kill
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def exit_code(command: Callable[[], int]) -> int:
    """Returns what ``command`` returns; a :class:`UserError` becomes one message of rank 0 and the code 2.

    Ctrl-C, a full disk and a path that is too long are told in a line, too (:func:`engine.errors.in_a_line`).
    What standard output cannot encode, such as names of files that are no UTF-8, is written as escapes.
    """
    open_standard_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        prepare_temporary_folder(_warn)
        code = command()
        sys.stdout.flush()
        return code
    except BaseException as error:
        if (end := _end_of_output(error)) is not None:
            return end
        if (said := in_a_line(error)) is None:
            raise
        text, code = said
        if isinstance(error, UserError):
            from engine.task.other_tasks import explained

            text = explained(error)
        if first_rank():
            sys.stderr.write(f"error: {text}\n")  # in one piece: srun writes there too
        return code


def _end_of_output(error: BaseException) -> int | None:
    """Returns the exit code if ``error`` is that standard output takes no more, whose rest is dropped; else None."""
    if not isinstance(error, OSError) or error.filename is not None:  # files have names, see engine.files
        return None
    output = select.poll()
    output.register(1, 0)
    if error.errno == errno.EPIPE and output.poll(0):  # whoever read has seen enough, as head has
        code = 128 + signal.SIGPIPE
    elif error.errno in NO_ROOM:
        sys.stderr.write(f"error: standard output cannot be written: {error.strerror}\n")
        code = 1
    else:
        return None
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python's end flushes once more
    return code


def _warn(text: str) -> None:
    if first_rank():
        sys.stderr.write(f"warning: {text}\n")
