"""``--sweep key.path=a,b,c``: one run for each combination of values."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from engine.config.load import split_values
from engine.config.run import RunConfig
from engine.config.yaml_reader import SCALARS
from engine.errors import UserError
from engine.run_folder.paths import RunDir


def combinations(sweeps: Sequence[str], schema: type[RunConfig]) -> list[tuple[str, ...]]:
    """Returns each run's overrides, ``[("a.b=1", "c=x"), …]``, the last key fastest; one empty for no sweep.

    Raises:
        UserError: a sweep is not of the form ``key.path=a,b``, or names a key or a value twice.
    """
    choices: dict[str, list[str]] = {}
    for sweep in sweeps:
        key, equals, text = sweep.partition("=")
        if not equals or not key:
            raise UserError(f"--sweep: '{sweep}' is not of the form key.path=a,b,c")
        if key in choices:
            raise UserError(f"--sweep: {key}: swept twice; give all its values in one list")
        values = choices[key] = split_values(key, text, schema)
        if not values or not all(values):
            raise UserError(f"--sweep: {key}: '{text}' has an empty value; write a,b,c")
        repeated = [value for value in values if values.count(value) > 1]
        if repeated:
            raise UserError(f"--sweep: {key}: {repeated[0]} is given twice")
    return [
        tuple(f"{key}={value}" for key, value in zip(choices, values, strict=True))
        for values in itertools.product(*choices.values())
    ]


def write_hparams(folder: RunDir, swept: Sequence[str]) -> None:
    """Tells TensorBoard what is special about this run, in the run itself rather than one below it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    values = {}  # numbers and truth values as such, so that they can be sorted; anything else as text
    for key, _, text in (override.partition("=") for override in swept):
        value = next(convert(text) for pattern, convert in SCALARS.values() if pattern.match(text))
        values[key] = text if value is None else value
    writer = EventFileWriter(str(folder.tensorboard), filename_suffix=".hparams")
    writer.add_event(Event(wall_time=time.time(), summary=hparams_pb(values, trial_id=folder.name)))
    writer.close()
