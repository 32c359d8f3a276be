"""torch.compile: too slow to warm up for every run of the tests, so marked ``full``."""

from __future__ import annotations

import pytest
import torch

from engine.run_folder.metrics import read_metrics
from tests.classification.small import TRAIN, write_config
from tests.distributed import launch


@pytest.mark.full
@pytest.mark.parametrize("world_size", [1, 2])
def test_compiled_and_eager_runs_have_the_same_keys_and_read_each_other(tmp_path, world_size):
    config = write_config(tmp_path, training={"steps": 4, "ema": {}}, model={"drop_path": 0.2})
    losses = {}  # what drop-path draws lies outside of what is compiled
    for number, compiled in ((1, "true"), (2, "false")):
        command = [*TRAIN, "--config", str(config), f"training.compile={compiled}"]
        ended = launch(world_size, command, cwd=tmp_path, timeout=500)
        assert [end.returncode for end in ended] == [0] * world_size, ended[0].output
        folder = tmp_path / "experiments" / f"experiment_000{number}"
        losses[compiled] = [r["loss"] for r in read_metrics(folder / "metrics.jsonl", "train")]
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-4)
    saved = [
        torch.load(tmp_path / "experiments" / f"experiment_000{n}" / "checkpoints" / "last.pt", weights_only=True)
        for n in (1, 2)
    ]
    for part in ("model", "ema"):
        assert saved[0][part].keys() == saved[1][part].keys()
