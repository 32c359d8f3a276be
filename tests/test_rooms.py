"""The rooms of the house: their order, and that no folder or file needs one that needs it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("swin", "engine", "classification", "detection", "diffusion", "tools")
ENGINE = (
    "engine",
    "engine.config",
    "engine.run_folder",
    "engine.checkpoints",
    "engine.devices",
    "engine.distributed",
    "engine.requeue",
    "engine.data",
    "engine.model",
    "engine.watchdog",
    "engine.images",
    "engine.datasets",
    "engine.plots",
    "engine.training",
    "engine.commands",
)
"""From the bottom up: a room may use those before it."""
MOST_FILES = 13
"""Of a folder, ``__init__.py`` included."""

FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
}


def used_by(file: Path) -> set[str]:
    """Modules of the project that a file imports anywhere, in functions and for type checks too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            found |= modules or {node.module}
    return found & FILES.keys()


USES = {module: used_by(file) - {module} for module, file in FILES.items()}


def room(module: str) -> str:
    """The folder that a module lies in, with dots."""
    return ".".join(FILES[module].relative_to(ROOT).parent.parts)


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Nodes of a directed graph that lead back to the first; empty if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_engines_rooms_use_those_below_alone() -> None:
    rooms = {room(module) for module in FILES if module.partition(".")[0] == "engine"}
    assert rooms == set(ENGINE), "a new room of the engine has its place in the order"
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
    folders: dict[str, set[str]] = {room(module): set() for module in FILES}
    for module, uses in USES.items():
        folders[room(module)] |= {room(used) for used in uses} - {room(module)}
    assert not circle(folders)


@pytest.mark.parametrize("folder", sorted({room(module) for module in FILES}))
def test_a_folder_can_be_overlooked(folder: str) -> None:
    files = [file.name for file in (ROOT / folder.replace(".", "/")).glob("*.py")]
    assert len(files) <= MOST_FILES, f"{len(files)} files; what belongs together makes a room of its own"


def test_circles_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})
