"""Which experiments are compared, in which order, and in what they differ."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from engine.board.settings import COMMON, PARTS_OF_MODELS
from engine.config.load import is_below
from engine.config.run import FREE
from engine.config.yaml_reader import SCALARS
from engine.errors import UserError
from engine.run_folder.experiments import LESS_IS_BETTER, Run

MOST_TOLD = 4
"""Settings by which a group of runs is named."""
MORE_IS_BETTER = ("images_per_second",)
"""Columns besides metrics whose largest value comes first."""


def columns(runs: Iterable[Run]) -> list[str]:
    """Returns the names of all that is known of any of the runs, metrics together and settings last."""
    heads: dict[str, None] = {}
    settings: dict[str, None] = {}
    for run in runs:
        settings |= dict.fromkeys(run.settings)
        heads |= dict.fromkeys(key for key in run.row() if key not in run.settings)
    groups = ("", "best", "last", "train", "test")
    ordered = sorted(heads, key=lambda name: groups.index(name.partition(".")[0] if "." in name else ""))
    return [*ordered, *settings]


def chosen(
    runs: Sequence[Run],
    conditions: Sequence[str],
    last: int | None,
    sort: str | None,
    headings: Mapping[str, str] = MappingProxyType({}),
) -> list[Run]:
    """Returns the runs that meet all ``key=value``, of these the ``last`` ones, the best first if ``sort`` is given.

    Args:
        headings: Columns by what stands above them where they are shown, which names them as well.

    Raises:
        UserError: a condition is none, or names what no run has.
    """
    known, found = columns(runs), list(runs)
    headings = {heading: column for heading, column in headings.items() if heading not in known}
    for condition in conditions:
        key, equals, text = condition.partition("=")
        if not equals:
            raise UserError(f"--where: '{condition}' is not of the form key=value")
        key = _column(headings.get(key.strip(), key.strip()), runs, "--where")
        found = [run for run in found if _equal(run.row().get(key), text.strip())]
    if last is not None:
        own = [run for run in found if run.state != "foreign"]
        starts = (str(run.facts.get("started") or "") for run in own)
        known = [*itertools.accumulate(starts, _later)]
        found = [own[place] for place in sorted(sorted(range(len(own)), key=known.__getitem__)[-last:])]
    return in_order(found, headings.get(sort, sort)) if sort else found


def _later(before: str, start: str) -> str:
    """Returns the start of a run; of one that only waits, as its folder does, that of the one ``before``."""
    return start or before


def in_order(runs: Sequence[Run], sort: str) -> list[Run]:
    """Sorts by a column, or by the best value of a metric; those without a value come last.

    Raises:
        UserError: no run has such a column.
    """
    column = _column(sort, runs, "--sort")
    sign = -1 if is_more_better(column, runs) else 1

    def key(run: Run) -> tuple[bool, float, str]:
        value = run.row().get(column)
        if isinstance(value, int | float):
            return False, sign * float(value), ""
        return True, 0.0, str(value or "")

    return sorted(runs, key=key)


def is_more_better(column: str, runs: Iterable[Run]) -> bool:
    """Tells whether the largest value of a column, or metric, is the best."""
    kind, _, metric = column.rpartition(".")
    if kind not in ("", "best", "last", "test"):
        return False
    told = [run.direction for run in runs if run.metric == metric]
    if told or kind:
        fewer = any(word in metric.lower() for word in LESS_IS_BETTER)
        return told[0] == "max" if told else not fewer and metric not in ("step", "epoch")
    return column in MORE_IS_BETTER


def _column(name: str, runs: Sequence[Run], option: str) -> str:
    known = columns(runs)
    settings = [column for column in known if column.endswith(f".{name}") and any(column in r.settings for r in runs)]
    of_setting = settings if len(settings) == 1 else []
    for column in (name, f"best.{name}", f"last.{name}", *of_setting, f"train.{name}"):
        if column in known:
            return column
    endings = [column for column in known if column.endswith(f".{name}")]
    if len(endings) == 1:
        return endings[0]
    short = {column.rpartition(".")[2]: column for column in reversed(known)} | {column: column for column in known}
    near = difflib.get_close_matches(name, short, 1)
    hint = f"; did you mean '{short[near[0]]}'?" if near else ""
    raise UserError(f"{option}: no run has '{name}'{hint}")


def _equal(value: Any, text: str) -> bool:
    """Tells whether a value is what ``text`` says, as YAML means it: ``1e-3`` is 0.001; a list, whether it is in it."""
    said = next(convert(text) for pattern, convert in SCALARS.values() if pattern.match(text))
    if isinstance(value, str) and value.startswith(("[", "{")):
        return re.sub(r"\s", "", value) == re.sub(r"\s", "", text) or text in _elements(value)
    if isinstance(value, bool) or isinstance(said, bool):
        return value is said
    return value == said or str(value) == text


def _elements(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [str(element) for element in found] if isinstance(found, list) else []


def differing(runs: Sequence[Run]) -> list[str]:
    """Returns the settings that have more than one value among the runs that have them; the usual ones first.

    Names and places, which are columns of their own or differ always, are left out.
    """
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.settings.items():
            values.setdefault(key, set()).add(_text(value))
    keys = [key for key, seen in values.items() if len(seen) > 1 and key not in ("experiment.name", "experiment.root")]

    def place(key: str) -> tuple[int, str]:
        if key.rpartition(".")[2] in PARTS_OF_MODELS:
            return -1, key
        return COMMON.index(key) if key in COMMON else len(COMMON), key

    return sorted(keys, key=place)


def groups(runs: Iterable[Run]) -> list[list[Run]]:
    """Puts together the runs that differ in their seed alone, and in what cannot change a result."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.settings:
            own = {key: value for key, value in run.settings.items() if not is_below(key, (*FREE, "experiment.seed"))}
            found.setdefault(json.dumps(own, sort_keys=True, default=str), []).append(run)
    return list(found.values())


def labels(parts: Sequence[Sequence[Run]]) -> list[str]:
    """Names each group of runs by what sets it apart from the others; one run by its folder too."""
    keys = [key for key in differing([part[0] for part in parts]) if not is_below(key, (*FREE, "experiment.seed"))]
    texts = []
    for part in parts:
        own = part[0].settings
        told = [f"{key.rpartition('.')[2]}={_text(own[key])}" for key in keys if own.get(key) is not None]
        told[MOST_TOLD:] = ["…"] if len(told) > MOST_TOLD else []
        name = part[0].path.name if len(part) == 1 else f"{len(part)} runs"
        texts.append(f"{name} ({', '.join(told)})" if told else name)
    alike = {text for text in texts if texts.count(text) > 1}
    return [
        f"{text} from {part[0].path.name} on" if text in alike else text
        for text, part in zip(texts, parts, strict=True)
    ]


def _text(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
