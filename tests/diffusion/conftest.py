"""A classifier that judges, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.classification.small import TRAIN, write_config
from tests.distributed import launch


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment: a tiny Swin after two steps on the digits."""
    folder = tmp_path_factory.mktemp("judge")
    config = write_config(folder, training={"steps": 2, "global_batch_size": 16, "precision": "fp32"})
    (ended,) = launch(1, [*TRAIN, "--config", str(config)], cwd=folder)
    assert ended.returncode == 0, ended.output
    return folder / "experiments" / "experiment_0001"
