"""The cluster that all tests of this folder share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Slurm of two nodes on this machine. With REQUIRE_SLURM set, as in CI, it is an error that there is none."""
    reason = missing()
    if reason and os.environ.get("REQUIRE_SLURM"):
        pytest.fail(f"REQUIRE_SLURM is set, but no Slurm can be started: {reason}")
    if reason:
        pytest.skip(f"no Slurm can be started: {reason}")
    with Cluster() as running:
        yield running
