"""``python -m tools.rooms``: draws the rooms of the house from its imports into docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

from engine.commands.arguments import command_parser
from engine.files import write_atomic
from engine.task.spec import known_tasks

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tools", *known_tasks(), "engine", "swin")
PAGE = Path("docs") / "architecture.md"
BEGIN, END = "<!-- rooms: python -m tools.rooms -->", "<!-- end of rooms -->"


def modules(root: Path) -> dict[str, Path]:
    """Returns the file of each module of the project, by its dotted name."""
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imported(file: Path, known: Iterable[str]) -> set[str]:
    """Returns the modules among ``known`` that a file imports anywhere: in functions and for type checks too."""
    known, found = set(known), set[str]()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & known or {node.module}
    return found & known


def room_of(file: Path, root: Path) -> str:
    """Returns the folder that a file lies in, with dots."""
    return ".".join(file.relative_to(root).parent.parts)


def rooms(root: Path) -> dict[str, set[str]]:
    """Returns the other rooms that each room uses."""
    files = modules(root)
    used: dict[str, set[str]] = {room_of(file, root): set() for file in files.values()}
    for file in files.values():
        own = room_of(file, root)
        used[own] |= {room_of(files[module], root) for module in imported(file, files)} - {own}
    return used


def reduced(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Returns a directed graph, less the edges that longer ways stand for.

    Raises:
        CycleError: it has a circle.
    """
    TopologicalSorter(graph).prepare()

    def beyond(node: str) -> set[str]:
        return set().union(*({next_, *beyond(next_)} for next_ in graph[node]))

    return {node: used - set().union(*(beyond(other) for other in used)) for node, used in graph.items()}


def purpose(room: str, root: Path) -> str:
    """Returns the first line of the docstring in a room's ``__init__.py``."""
    text = ast.get_docstring(ast.parse((root / room.replace(".", "/") / "__init__.py").read_text(encoding="utf-8")))
    return (text or "").partition("\n")[0]


def drawing(root: Path) -> str:
    """Returns the rooms as a Mermaid graph, what is used below its users, and as a table with their purposes."""
    graph = rooms(root)
    lines = ["```mermaid", "graph TD"]
    for package in PACKAGES:
        inside = sorted(room for room in graph if room.partition(".")[0] == package)
        if inside:
            lines += [f"  subgraph {package}_[{package}]", *(f"    {room}" for room in inside), "  end"]
    lines += [f"  {room} --> {other}" for room, used in sorted(reduced(graph).items()) for other in sorted(used)]
    table = ["| Room | Files | Purpose |", "| --- | --- | --- |"]
    for room in sorted(graph):
        count = len([file for file in (root / room.replace(".", "/")).glob("*.py") if file.name != "__init__.py"])
        table.append(f"| `{room.replace('.', '/')}` | {count} | {purpose(room, root)} |")
    return "\n".join([*lines, "```", "", *table])


def redrawn(page: str, root: Path) -> str:
    """Returns a page with the text between its two marks replaced by the drawing of today."""
    pattern = re.compile(f"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.DOTALL)
    return pattern.sub(lambda _: f"{drawing(root)}\n", page)


def main(arguments: list[str] | None = None) -> None:
    """Draws the page anew."""
    description = f"Draws the rooms of the house, from its imports, into {PAGE}."
    command_parser("python -m tools.rooms", description, ["python -m tools.rooms"]).parse_args(arguments)
    page = ROOT / PAGE
    write_atomic(page, redrawn(page.read_text(encoding="utf-8"), ROOT))


if __name__ == "__main__":
    main()
