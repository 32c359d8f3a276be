"""Every key that takes numbers, of all tasks: what is absurd is refused by its key, before anything is built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import TypeAdapter, ValidationError

from engine.config.load import load_config
from engine.config.type_words import alternatives, key_paths
from engine.errors import UserError
from engine.task.spec import find_spec, known_tasks
from tests.fuzz.yaml_texts import TREES, written

BEYOND = 10**30


def huge(annotation: Any) -> Iterator[Any]:
    """Values of whole numbers that nothing has so many of, in the form that a key takes."""
    for member in alternatives(annotation):
        arguments = [argument for argument in get_args(member) if argument is not Ellipsis]
        if member is int:
            yield BEYOND
        elif get_origin(member) in (tuple, list):
            yield from ([value] * max(2, len(arguments)) for value in huge(arguments[0]))


def test_no_whole_number_is_without_bounds() -> None:
    checked = set()
    for task in known_tasks():
        for path, field in key_paths(find_spec(task).schema()):
            for value in huge(field.annotation):
                checked.add((task, path))
                with pytest.raises(ValidationError, match=r"less than|more than any run"):
                    TypeAdapter(Annotated[(field.annotation, "", *field.metadata)]).validate_json(json.dumps(value))
    assert len(checked) > 100


@pytest.mark.parametrize(
    "override",
    [
        "data.image_size=1000000000",
        "data.workers=1000000000",
        "data.prefetch=1000000000",
        "training.global_batch_size=1000000000",
        "model.window_size=1000000000",
        "model.depths=[2, 1000000000]",
    ],
)
def test_what_memory_grows_with_has_a_bound_of_its_own(override: str, tmp_path) -> None:
    (tmp_path / "run.yaml").write_text(written(next(tree for name, tree in TREES if name == "classification")))
    with pytest.raises(UserError, match=rf"command line: {override.partition('=')[0]}.*<= "):
        load_config(find_spec("classification").schema(), tmp_path / "run.yaml", [override], slow_checks=False)
