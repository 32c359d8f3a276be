"""Properties on generated examples: few in every run of the tests, and the same each time; many in `make test-full`.

``FUZZ_EXAMPLES=100000 python -m pytest tests/fuzz`` looks for what nobody has seen yet, at random and for hours.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from engine.errors import UserError

T = TypeVar("T")

set_hypothesis_home_dir(Path(tempfile.gettempdir(), f"hypothesis-{os.getuid()}"))  # what it caches, out of the tree
PROVIDERS = sys.modules.get("hypothesis.internal.conjecture.providers")
if hasattr(PROVIDERS, "_get_local_constants"):  # it would draw from the code of all modules that any test has imported
    PROVIDERS._get_local_constants = lambda: PROVIDERS._local_constants  # type: ignore[union-attr]

AT_RANDOM = int(os.environ.get("FUZZ_EXAMPLES", 0))

Hunt = Callable[..., Callable[[Callable[..., None]], None]]
"""Given the strategies of its arguments, decorates a property and tries it at once."""


def hunted(few: int, many: int) -> Any:
    """Gives a test the argument ``hunt``, a :data:`Hunt` of so many examples; the one of many is marked ``full``."""
    counts = [pytest.param(partial(_hunt, few), id="few")]
    counts += [pytest.param(partial(_hunt, many), id="many", marks=pytest.mark.full)]
    return pytest.mark.parametrize("hunt", counts)


def _hunt(count: int, *strategies: st.SearchStrategy) -> Callable[[Callable[..., None]], None]:
    def decorate(check: Callable[..., None]) -> None:
        return settings(
            max_examples=AT_RANDOM or count,
            derandomize=not AT_RANDOM,
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        )(given(*strategies)(check))()

    return decorate


def refused(call: Callable[[], T]) -> tuple[T | None, str]:
    """Returns what ``call`` returns, and the text of the UserError that it raises instead."""
    try:
        return call(), ""
    except UserError as error:
        text = str(error)
        assert text.strip()
        return None, text
