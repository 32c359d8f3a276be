"""Fine-tuning with real models: weights of other experiments, and runs in phases that are killed and resumed."""

from __future__ import annotations

import json
import logging
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from classification.config import ClassificationConfig
from classification.model.build import build_model
from classification.spec import SPEC
from engine.checkpoints import store
from engine.commands.build import build_trainer
from engine.config.load import load_config
from engine.config.training import FinetuneConfig
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.run_folder.metrics import read_metrics
from engine.training.trainer import Trainer
from tests.classification.small import TRAIN, write_config
from tests.distributed import Group, launch, run_ranks
from tests.engine.staged import differing, finish, read
from tests.engine.toy import SINGLE

HEAD = {"hidden": 8, "dropout": 0.2, "batch_norm": True, "hidden_dropout": 0.1}
UNFREEZE = {"0": "head", "0.012": "stage_2", "0.024": "all"}
"""For 89 steps an epoch: with steps 0, 1 and 2."""
PHASED = {
    "model": {"head": HEAD, "drop_path": 0.2},
    "augmentation": {"mixup": 0.8},
    "training": {"steps": 4, "ema": {"decay": 0.9}, "accumulation": 2},
    "finetune": {"unfreeze": UNFREEZE, "backbone_lr_scale": 0.1, "layer_decay": 0.7, "backbone_weight_decay": 0.01},
    "optimizer": {"name": "lamb"},
    "schedule": {"min_lr": 1e-4},
}


def saved_experiment(folder: Path, trainer: Trainer, names: tuple[str, ...] = ("best", "last")) -> Path:
    """An experiment's folder as a run leaves it, with the trainer's state as its best checkpoint."""
    store.save(folder / "checkpoints", trainer.state.step, trainer.state_dict(), 2, best="best" in names)
    return folder


def trainer_of(config: Path, ranks: Ranks = SINGLE, *overrides: str) -> Trainer:
    return build_trainer(SPEC, load_config(ClassificationConfig, config, overrides), ranks)


# -- weights of another experiment -----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("best", "last"), ("last",)])
def test_the_best_checkpoint_of_another_experiment_is_taken(
    names: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_config(tmp_path, **PHASED)
    first = trainer_of(config)
    assert first.learner.ema is not None
    for tensor in first.learner.ema.module.parameters():
        tensor.data.add_(1.0)
    folder = saved_experiment(tmp_path / "experiment_0007", first, names)
    if "best" in names:  # newer, and not the best
        for tensor in first.learner.ema.module.parameters():
            tensor.data.add_(1.0)
        first.state.step = 1
        store.save(folder / "checkpoints", 1, first.state_dict(), 2)
    with caplog.at_level(logging.INFO):
        second = trainer_of(config, SINGLE, f"finetune.weights={folder}")
    file = folder / "checkpoints" / f"{names[0]}.pt"
    assert f"weights to start from: {file}" in caplog.messages
    state = torch.load(file, weights_only=True)["ema"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in second.task.model.state_dict().items())


def test_an_experiment_with_a_torn_checkpoint_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    folder = saved_experiment(tmp_path / "experiment_0007", trainer_of(config))
    with (folder / "checkpoints" / "best.pt").open("r+b") as file:
        file.seek(1000)
        file.write(b"torn")
    loaded = load_config(ClassificationConfig, config)
    with pytest.raises(UserError, match=r"finetune\.weights: .*best\.pt differs from its checksum"):
        build_model(loaded.model, FinetuneConfig(weights=folder), 10, (16, 16))


# -- phases ----------------------------------------------------------------------------------------------------------


def whole_and_resumed(ranks: Ranks, config: str) -> dict[str, Any]:
    """What differs at the end of runs continued from each step, and what was trained in it."""
    whole = finish(trainer_of(Path(config), ranks))
    differences, trained = [], []
    for content, following in pairwise(whole):
        resumed = trainer_of(Path(config), ranks)
        resumed.load_state_dict(read(content))
        differences.append(differing(read(finish(resumed)[-1]), read(whole[-1])))
        before, after = read(content)["model"], read(following)["model"]
        trained.append(sorted({_stage(name) for name in after if not torch.equal(after[name], before[name])}))
    return {"differing": differences, "trained": trained}


def _stage(name: str) -> str:
    first, second, *_ = name.split(".")
    return {"patch_embed": "stem", "layers": f"stage_{second}", "norm": "head"}.get(first, first)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_swin_with_a_head_of_its_own_resumes_in_any_phase(world_size: int, tmp_path: Path) -> None:
    """To the same checkpoint: weights, statistics, optimizer, moving average, sums of the next record."""
    config = str(write_config(tmp_path, **PHASED))
    everything = ["head", "stage_0", "stage_1", "stem"]
    results = [whole_and_resumed(SINGLE, config)] if world_size == 1 else run_ranks(2, whole_and_resumed, config)
    for result in results:
        assert result["trained"] == [["head"], ["head", "stage_1"], everything, everything]
        assert result["differing"] == [[]] * 4


@pytest.mark.full
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_killed_in_each_phase_ends_in_the_same_bits(world_size: int, tmp_path: Path) -> None:
    """Real processes, SIGKILL, checkpoints at every step, batch norm in a timm model."""
    sections = {
        **PHASED,
        "training": {"steps": 60, "accumulation": 2, "ema": {"decay": 0.9}},
        "finetune": {**PHASED["finetune"], "unfreeze": {"0": "head", "0.2": ["stage_4", "stage_3"], "0.4": "all"}},
        "checkpoint": {"every_steps": 1},
        "logging": {"every_steps": 1},
        "evaluation": {"every_steps": 30, "batch_size": 90},
    }
    model = f"model={json.dumps({'name': 'timm/test_byobnet', 'head': HEAD})}"
    command = [*TRAIN, "--config", str(write_config(tmp_path, **sections)), model]
    ended = launch(world_size, command, cwd=tmp_path, timeout=300)
    assert [end.returncode for end in ended] == [0] * world_size, ended[0].output
    killed = tmp_path / "experiments" / "experiment_0002"
    for step in (5, 22, 45):
        with Group(world_size, command, cwd=tmp_path) as group:
            while _steps(killed / "metrics.jsonl") < step:
                assert all(process.poll() is None for process in group.processes), group.output(0)
                time.sleep(0.01)
        command = [*TRAIN, "--resume", str(killed)]
    ended = launch(world_size, command, cwd=tmp_path, timeout=300)
    assert [end.returncode for end in ended] == [0] * world_size, ended[0].output
    one, two = (
        torch.load(tmp_path / "experiments" / name / "checkpoints" / "last.pt", weights_only=True)
        for name in ("experiment_0001", "experiment_0002")
    )
    for part in ("model", "ema"):
        assert all(torch.equal(tensor, two[part][name]) for name, tensor in one[part].items())
    assert one["optimizer"]["state"].keys() == two["optimizer"]["state"].keys()
    losses = [
        [(r["step"], r["loss"]) for r in read_metrics(tmp_path / "experiments" / name / "metrics.jsonl")]
        for name in ("experiment_0001", "experiment_0002")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 62


def _steps(metrics: Path) -> int:
    try:
        return max((int(record["step"]) for record in read_metrics(metrics)), default=0)
    except (FileNotFoundError, UserError):
        return 0
