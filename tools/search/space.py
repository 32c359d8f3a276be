"""What is searched: a file of ranges, with a sampler and a pruner of Optuna by their names."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import AfterValidator, Field, model_validator

from engine.config.load import is_below, load_config
from engine.config.run import RunConfig
from engine.config.section import Count, PositiveRange, Section
from engine.errors import UserError
from engine.seed import derive

Scalar = bool | int | float | str | None
FINITE = ("GridSampler", "BruteForceSampler")
"""Samplers that try every combination once."""
ONE_SEED = ("GridSampler", "QMCSampler")
"""Samplers whose order follows from their seed and the number of trials."""


def _apart(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"the smaller number comes first, not {list(bounds)}")
    return bounds


FIXED = ("evaluation.metric", "experiment.root")
"""Settings by which trials are compared and found: the same for all of them."""


class Range(Section):
    """Values that a setting may take: exactly one of ``log``, ``uniform``, ``integer`` and ``choice``."""

    log: PositiveRange | None = None
    """Numbers between two, by their logarithm."""
    uniform: Annotated[tuple[float, float], AfterValidator(_apart)] | None = None
    """Numbers between two."""
    integer: Annotated[tuple[int, int], AfterValidator(_apart)] | None = None
    """Whole numbers from one to another."""
    step: Count = 1
    """With ``integer``: the distance between neighbours."""
    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    """One of a list; mappings and lists too."""

    @model_validator(mode="after")
    def _is_one(self) -> Range:
        given = [name for name in ("log", "uniform", "integer", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of log, uniform, integer and choice, not {' and '.join(given) or 'none'}")
        if self.step != 1 and self.integer is None:
            raise ValueError("step: has an effect only with integer")
        return self

    def distribution(self) -> BaseDistribution:
        """Returns it as Optuna has it. A choice that is a list or a mapping is its JSON text there."""
        if (whole := self._whole()) is not None:
            return IntDistribution(whole[0], whole[-1], step=self.step)
        if self.choice is not None:
            return CategoricalDistribution([_scalar(value) for value in self.choice])
        bounds = self.log or self.uniform
        assert bounds is not None
        return FloatDistribution(*bounds, log=self.log is not None)

    def ends(self) -> list[Scalar]:
        """Returns the values that are tried before a search begins: the first and the last, or all choices."""
        if self.choice is not None:
            return [_scalar(value) for value in self.choice]
        whole = self._whole()
        return [whole[0], whole[-1]] if whole is not None else list(self.log or self.uniform or ())

    def values(self) -> Sequence[Scalar] | None:
        """Returns all values; None if they cannot be counted."""
        return self._whole() if self.choice is None else self.ends()

    def _whole(self) -> range | None:
        """Returns the whole numbers of ``integer``."""
        return None if self.integer is None else range(self.integer[0], self.integer[1] + 1, self.step)


class SearchSpace(Section):
    """The file of ``--space``."""

    parameters: Annotated[dict[str, Range], Field(min_length=1)]
    """Settings by their dotted keys, with the values that they may take."""
    sampler: dict[str, Any] = {"name": "TPESampler", "seed": 0}
    """What proposes values: a class of optuna.samplers, with its arguments."""
    pruner: dict[str, Any] = {"name": "MedianPruner"}
    """What ends trials early: a class of optuna.pruners, with its arguments; its steps are evaluations, from 1."""

    def distributions(self) -> dict[str, BaseDistribution]:
        """Returns the ranges as Optuna has them."""
        return {key: values.distribution() for key, values in self.parameters.items()}

    def combinations(self) -> int | None:
        """Returns how many trials a sampler that tries each combination once has to make; None for any other."""
        if self.sampler.get("name") not in FINITE:
            return None
        listed = {key: values.values() for key, values in self.parameters.items()}
        if endless := [key for key, values in listed.items() if values is None]:
            raise UserError(
                f"sampler: {self.sampler['name']} tries each value of {endless[0]}; give it choice or integer"
            )
        return math.prod(len(values or ()) for values in listed.values())

    def build_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Returns the sampler for trial ``number``.

        What it proposes follows from the trials before and its seed alone, so that a search which was killed goes on as
        one that was not: a seed of its own for each trial stands in for the state of a generator.
        """
        arguments = dict(self.sampler)
        if arguments.get("name") == "GridSampler":
            arguments["search_space"] = {key: [*(values.values() or ())] for key, values in self.parameters.items()}
        return _build(optuna.samplers, "sampler", arguments, number)

    def build_pruner(self) -> optuna.pruners.BasePruner:
        """Returns the pruner."""
        return _build(optuna.pruners, "pruner", self.pruner)


def read_space(file: Path) -> SearchSpace:
    """Reads a file of ranges.

    Raises:
        UserError: something in it is wrong; ``FILE:LINE: key: what``, where it is a key.
    """
    space = load_config(SearchSpace, file)
    try:
        space.combinations()
        space.build_sampler(0)
        space.build_pruner()
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return space


def check_space(
    space: SearchSpace, schema: type[RunConfig], config: Path, overrides: Sequence[str], file: Path
) -> None:
    """Makes sure that each parameter is a setting that takes each end of its range, the others as configured.

    Raises:
        UserError: one is not; is given on the command line too; is part of another; or the same for all.
    """
    keys = {text.partition("=")[0] for text in overrides}
    if fixed := [key for key in FIXED if is_below(key, tuple(space.parameters))]:
        raise UserError(f"{file}: {fixed[0]}: is the same for all trials, which are compared or found by it")
    for key in space.parameters:
        if above := [other for other in space.parameters if other != key and is_below(key, (other,))]:
            raise UserError(
                f"{file}: {key}: cannot be searched together with {above[0]}, which it is a part of; write it into the "
                f"choices of {above[0]}, or search it in another search"
            )
    if twice := sorted(key for key in keys if is_below(key, tuple(space.parameters))):
        raise UserError(f"{file}: {', '.join(twice)}: searched, and given a single value too; leave one away")
    for key, values in space.parameters.items():
        for value in values.ends():
            try:
                load_config(schema, config, [*overrides, *settings_of({key: value})])
            except UserError as error:
                raise UserError(f"{file}: parameters.{key}: {value} cannot be tried: {error}") from None


def settings_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns values of a trial as ``key.path=value`` of the command line."""
    return tuple(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leaves out Optuna's warnings of what is experimental in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _scalar(value: Any) -> Scalar:
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def _build(module: Any, what: str, arguments: Mapping[str, Any], number: int | None = None) -> Any:
    """Makes what a mapping with ``name`` describes; mappings with a name among its arguments as well.

    What takes a seed has one for trial ``number`` that follows from its own.
    """
    if "name" not in arguments:
        raise UserError(f"{what}: has no name; such as {what}: {{name: {module.__all__[-1]}}}")
    name, known = str(arguments["name"]), [each for each in module.__all__ if each[0].isupper()]
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(known)}"
        raise UserError(f"{what}: Optuna has no '{name}'{hint}")
    given = {
        key: _build(module, f"{what}.{key}", value, number) if isinstance(value, Mapping) and "name" in value else value
        for key, value in arguments.items()
        if key != "name"
    }
    make = getattr(module, name)
    if number is not None and name not in ONE_SEED and "seed" in inspect.signature(make).parameters:
        seed = given.get("seed") or 0
        if type(seed) is not int or seed < 0:
            raise UserError(f"{what}: {name}: seed: a whole number from 0 on, not {seed!r}")
        given["seed"] = derive(seed, "search", number) % 2**32
    try:
        with quiet():
            return make(**given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: {name}: {error}") from None
