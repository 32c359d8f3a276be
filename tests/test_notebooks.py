"""Notebooks: reviewed as .py files, with the executed .ipynb beside each; both say the same, and the source runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.environment import ROOT, clean_environment

SOURCES = sorted((ROOT / "notebooks").glob("*.py"))


def cells(source: Path) -> list[tuple[str, str]]:
    """Kind and text of each cell of a file in the percent format, as jupytext reads it."""
    parts = re.split(r"^# %%(.*)\n", source.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = []
    for head, text in zip(parts[::2], parts[1::2], strict=True):
        if "markdown" in head:
            found.append(("markdown", re.sub(r"^# ?", "", text.strip("\n"), flags=re.MULTILINE)))
        else:
            found.append(("code", re.sub(r"^( *)# !", r"\1!", text.strip("\n"), flags=re.MULTILINE)))
    return found


def test_there_are_notebooks() -> None:
    assert [source.stem for source in SOURCES] == ["detection", "experiments", "fine_tune", "inside_swin"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_committed_notebook_is_the_source_executed(source: Path) -> None:
    notebook: dict[str, Any] = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    committed = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert committed == cells(source)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "executed from top to bottom"
    assert sum(bool(cell["outputs"]) for cell in code) >= 3
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]
    assert "/tmp" not in json.dumps(notebook) and "Traceback" not in json.dumps(notebook)


@pytest.mark.full
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_the_source_runs(source: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install -e '.[notebooks]'")
    jupytext = pytest.importorskip("jupytext", reason="needs jupytext: pip install -e '.[notebooks]'")
    pytest.importorskip("ipykernel", reason="needs ipykernel: pip install -e '.[notebooks]'")
    notebook = jupytext.read(source)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == cells(source)
    client = nbclient.NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    done = client.execute(env=clean_environment())
    shown = [len(cell.outputs) > 0 for cell in done.cells if cell.cell_type == "code"]
    committed = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert shown == [len(cell["outputs"]) > 0 for cell in committed["cells"] if cell["cell_type"] == "code"]
