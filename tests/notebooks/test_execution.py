"""The notebooks' sources, run anew, show what is committed beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notebooks.comparison import differences
from tests.notebooks.percent import FOLDER, NAMES, committed

pytestmark = pytest.mark.full


@pytest.mark.parametrize("name", NAMES)
def test_a_source_shows_what_is_committed(tmp_path: Path, name: str) -> None:
    for package in ("jupytext", "nbclient", "ipykernel", "pandas"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[notebooks]'")
    from tools.notebooks import executed

    assert not differences(committed(FOLDER / f"{name}.ipynb"), executed(FOLDER / f"{name}.py", tmp_path))
