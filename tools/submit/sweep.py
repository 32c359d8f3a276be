"""``--sweep key.path=a,b,c``: one run for each combination of values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from engine.config.load import split_values
from engine.config.run import RunConfig
from engine.errors import UserError


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
