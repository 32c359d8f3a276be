"""Settings of all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import memory

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # see engine.commands.entry.wait_politely; torch is not imported yet

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"
GIVES_BACK = memory.GivesBack()
LIMIT = memory.Limit()


def pytest_collection_finish() -> None:
    """Lets no later search for garbage go through all that the imports have made."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def shared_data() -> Path:
    """Real data sets that lie beside the project on some machines."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared/data beside the project: the test on real images is left out")
    return SHARED / "data"


@pytest.fixture(scope="session", autouse=True)
def own_indices(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Leaves no listing of any test's data in the user's cache."""
    os.environ["SWIN_HPC_CACHE"] = str(tmp_path_factory.mktemp("indices"))


@pytest.fixture(autouse=True)
def small_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test with which a process of the tests has become too large, unless it is marked as a long one."""
    yield
    GIVES_BACK()
    fault = LIMIT.fault(request.node.nodeid, memory.peak())
    if fault is not None and not {"full", "gpu"} & {mark.name for mark in request.node.iter_markers()}:
        pytest.fail(fault, pytrace=False)
