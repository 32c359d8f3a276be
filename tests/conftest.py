"""Settings of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # see engine.commands.entry.wait_politely; torch is not imported yet

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"


@pytest.fixture
def shared_data() -> Path:
    """Real data sets that lie beside the project on some machines."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared/data beside the project: the test on real images is left out")
    return SHARED / "data"
