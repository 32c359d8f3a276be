"""The rooms of the house: their order, and that no folder or file needs one that needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tools.rooms import PAGE, imported, modules, purpose, redrawn, reduced, room_of, rooms

ROOT = Path(__file__).resolve().parents[1]
ENGINE = (
    "engine",
    "engine.config",
    "engine.board",
    "engine.run_folder",
    "engine.checkpoints",
    "engine.devices",
    "engine.process",
    "engine.distributed",
    "engine.requeue",
    "engine.data",
    "engine.keras_models",
    "engine.model",
    "engine.watchdog",
    "engine.images",
    "engine.exported",
    "engine.augmentation",
    "engine.datasets",
    "engine.plots",
    "engine.task",
    "engine.training",
    "engine.commands",
)
"""From the bottom up: a room may use those before it."""
MOST_FILES = 13
"""Of a folder, ``__init__.py`` included."""

FILES = modules(ROOT)
USES = {module: imported(file, FILES) - {module} for module, file in FILES.items()}


def room(module: str) -> str:
    """The folder that a module lies in, with dots."""
    return room_of(FILES[module], ROOT)


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Nodes of a directed graph that lead back to the first; empty if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_engines_rooms_use_those_below_alone() -> None:
    there = {room(module) for module in FILES if module.partition(".")[0] == "engine"}
    assert there == set(ENGINE), "a new room of the engine has its place in the order"
    wrong = [
        f"{module} uses {used}"
        for module, uses in USES.items()
        if room(module) in ENGINE
        for used in sorted(uses)
        if room(used) not in ENGINE[: ENGINE.index(room(module)) + 1]
    ]
    assert not wrong


def test_no_files_need_each_other() -> None:
    assert not circle(USES)


def test_no_folders_need_each_other() -> None:
    assert not circle(rooms(ROOT))


@pytest.mark.parametrize("folder", sorted({room(module) for module in FILES}))
def test_a_folder_can_be_overlooked(folder: str) -> None:
    files = [file.name for file in (ROOT / folder.replace(".", "/")).glob("*.py")]
    assert len(files) <= MOST_FILES, f"{len(files)} files; what belongs together makes a room of its own"


def test_circles_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


def test_the_drawing_is_of_today() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert redrawn(page, ROOT) == page, "python -m tools.rooms draws it anew"


@pytest.mark.parametrize("folder", sorted(rooms(ROOT)))
def test_a_room_says_what_it_is_for(folder: str) -> None:
    assert purpose(folder, ROOT).endswith(".")


def test_ways_that_a_longer_one_stands_for_are_not_drawn() -> None:
    assert reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
