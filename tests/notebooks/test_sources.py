"""The notebooks as they are committed: run from their sources, in order, with public interfaces alone."""

from __future__ import annotations

import ast
import json
import re

import pytest

from tests.environment import ROOT
from tests.notebooks.comparison import alike, differences
from tests.notebooks.percent import FOLDER, NAMES, cells_of, committed, joined, source_of
from tests.test_references import PACKAGES, PAGES

MOST_KILOBYTES = 350
OF_A_MACHINE = re.compile(
    r"/(?:home|root|tmp|Users|usr|opt|var)/|[A-Z]:\\\\|site-packages|img/s|\d (?:seconds|minutes)\b"
)
"""What another machine, or another day, would show otherwise."""


@pytest.fixture(scope="module")
def documented() -> str:
    """What the pages say."""
    return "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)


def undocumented(source: str, pages: str) -> list[str]:
    """What of the project's code a source uses that no page shows how to import, or that is private."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                wrong += [alias.name for alias in names if alias.name.partition(".")[0] in PACKAGES]
            case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] in PACKAGES:
                shown = set(", ".join(re.findall(rf"from {re.escape(module)} import ([\w, ]+)", pages)).split(", "))
                wrong += [f"{module}.{alias.name}" for alias in names if alias.name not in shown]
            case ast.Attribute(attr=str(name)) if name.startswith("_"):
                wrong.append(name)
    return wrong


def test_each_source_has_its_notebook() -> None:
    assert len(NAMES) >= 4 and sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES
    assert not {*NAMES} & {*PACKAGES}, "Jupyter starts in their folder, and would import the notebook"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_was_run_from_its_source(name: str) -> None:
    cells = committed(FOLDER / f"{name}.ipynb")["cells"]
    written = [(cell["cell_type"], joined(cell["source"])) for cell in cells]
    assert written == cells_of(source_of(name)), "make notebooks runs it anew"
    kind, beginning = written[0]
    assert kind == "markdown" and beginning.startswith("# ") and "of your own*" in beginning
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_and_of_no_machine(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size <= MOST_KILOBYTES * 1024
    document = committed(path)
    for cell in document["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
            assert not OF_A_MACHINE.search(json.dumps(output))
    assert "version" not in document["metadata"]["language_info"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_uses_what_is_documented(name: str, documented: str) -> None:
    assert not undocumented(source_of(name), documented)


def test_what_is_not_public_is_noticed(documented: str) -> None:
    source = (
        "from engine.run_folder import read_experiments, paths\nfrom swin.windows import _regions\na._b\nimport engine"
    )
    found = undocumented(source, documented)
    assert found == ["engine.run_folder.paths", "swin.windows._regions", "engine", "_b"]


def test_a_notebook_that_says_otherwise_is_noticed() -> None:
    book = committed(FOLDER / f"{NAMES[0]}.ipynb")
    assert not differences(book, book)
    for number, cell in enumerate(book["cells"], start=1):
        for change in ("outputs", "source"):
            if cell.get(change):
                other = json.loads(json.dumps(book))
                other["cells"][number - 1][change] = []
                (found,) = differences(book, other)
                assert found == "they have other cells" if change == "source" else found.startswith(f"cell {number}: ")
    assert alike("98.0% are right, 0.91 |  0.5 | 36", "99.5% are right, 0.87 | 0.55 | 36")
    for other in ("80.0% are right, 0.91", "98.0% are wrong, 0.91", "98.0% are right, 0.7", "98.0% are right, 2.91"):
        assert not alike("98.0% are right, 0.91", other)
    assert not alike("36 images", "37 images")
