"""``python -m tools.notebooks``: runs the notebooks' sources and writes them with their outputs beside them."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from engine.commands.arguments import command_parser
from engine.files import write_atomic

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, where there are no widgets
}
CELL_SECONDS = 1800
"""After which a cell counts as hanging."""


def executed(source: Path, folder: Path) -> NotebookNode:
    """Runs a source in percent format in ``folder``, cell by cell, on one thread of a CPU.

    Needs the packages of the extra `notebooks`.

    Returns:
        The notebook with its outputs, in which nothing changes that does not change in the source or in what is shown.

    Raises:
        CellExecutionError: a cell fails.
    """
    import jupytext
    from nbclient import NotebookClient

    book = jupytext.read(source, fmt="py:percent")
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(book, timeout=CELL_SECONDS, kernel_name="python3", resources=place, record_timing=False)
    client.execute(env={**os.environ, **ENVIRONMENT, "TMPDIR": str(folder)})
    book.metadata = METADATA
    for number, cell in enumerate(book.cells, start=1):
        cell.id, cell.metadata = f"cell-{number}", {}
    return book


def main(arguments: list[str] | None = None) -> int:
    """Runs the notebooks that are named, or all, each in an empty folder."""
    known = sorted(path.stem for path in FOLDER.glob("*.py"))
    parser = command_parser(
        "python -m tools.notebooks",
        "Runs notebooks/NAME.py, in an empty folder on one CPU core, and writes notebooks/NAME.ipynb with its outputs.",
        ["python -m tools.notebooks", "python -m tools.notebooks fine_tuning"],
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*known, []], help="all by default")
    names = parser.parse_args(arguments).names or known
    import nbformat

    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            book = executed(FOLDER / f"{name}.py", Path(folder))
        path = FOLDER / f"{name}.ipynb"
        write_atomic(path, nbformat.writes(book) + "\n")
        print(f"{path.relative_to(FOLDER.parent)}: {len(book.cells)} cells, {path.stat().st_size / 1024:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
