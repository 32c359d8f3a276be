"""Diffusion as a task: what it learns, and that neither ranks nor accumulation change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion.generator import sample_all
from diffusion.metrics.names import BIN_NAMES
from diffusion.samplers.request import Request
from diffusion.spec import SPEC
from diffusion.task import DiffusionTask
from engine.commands.build import build_trainer
from engine.data.batch_plan import Draw
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from tests.diffusion.small import config_of
from tests.distributed import run_ranks
from tools.chaos.compare import tree_difference

SINGLE = Ranks(Layout(), torch.device("cpu"))
STRATIFIED = {"times": {"name": "uniform", "stratified": True}}


def losses(ranks: Ranks, changes: dict[str, Any]) -> list[float]:
    """Losses of six steps."""
    trainer = build_trainer(SPEC, config_of(**changes), ranks)
    batches, found = trainer.batches(), []
    for _ in range(6):
        trainer.train_step(batches)
        trainer.settle()
        found.append(trainer.state.window.means()["loss"] * trainer.state.window.steps)
    return found


@pytest.mark.parametrize("diffusion", [{}, STRATIFIED], ids=["plain", "stratified"])
def test_ranks_and_accumulation_see_the_same(diffusion: dict[str, Any]) -> None:
    alone = losses(SINGLE, {"diffusion": diffusion})
    parts = losses(SINGLE, {"diffusion": diffusion, "training": {"accumulation": 4}})
    assert parts == pytest.approx(alone, rel=1e-5)
    for world_size in (2, 3):
        for found in run_ranks(world_size, losses, {"diffusion": diffusion}):
            assert found == pytest.approx(alone, rel=1e-5)


def evaluated(ranks: Ranks) -> tuple[dict[str, float], torch.Tensor]:
    torch.manual_seed(0)
    task = DiffusionTask(config_of(diffusion={"sampling": {"sampler": "ddpm", "steps": 2, "block": 4}}), ranks)
    torch.nn.init.normal_(task.model.get_parameter("head.weight"), std=0.1)
    with torch.inference_mode():
        found = task.evaluate(task.model.eval(), "val", ranks)
        request = Request(11, 5, (3, 8))
        images = sample_all(task.generator, task.model, request, task.config.diffusion.sampling, ranks)
    return found.metrics, images


def test_evaluations_and_samples_are_bitwise_the_same_for_any_number_of_ranks() -> None:
    metrics, images = evaluated(SINGLE)
    assert set(metrics) == {"loss", *BIN_NAMES} and images.shape == (11, 1, 8, 8)
    assert len(np.unique(images)) > 20
    for world_size in (2, 3):
        for theirs, others in run_ranks(world_size, evaluated):
            assert theirs == metrics and torch.equal(others, images)


def test_one_batch_is_learnt_by_heart() -> None:
    torch.manual_seed(0)
    task = DiffusionTask(config_of(model={"embed_dim": 24, "depths": [2, 2]}), SINGLE)
    batch = task.workers.collate([task.train_data[Draw(index, 0, index)] for index in range(8)])
    optimizer = torch.optim.AdamW(task.model.parameters(), 3e-3, weight_decay=0.0)
    found = []
    for _ in range(120):
        loss = task.training_step(task.model.train(), batch)["loss"]
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found[-1] < 0.2 * found[0], found[::20]


@pytest.mark.parametrize(
    "changes",
    [
        {"diffusion": {"objective": "edm", "schedule": {"name": "edm"}, "times": {"name": "log_normal"}}},
        {
            "diffusion": {
                "objective": "eps",
                "schedule": {"name": "linear", "steps": 20},
                "weighting": {"name": "min_snr"},
            }
        },
        {"diffusion": {"objective": "flow", "schedule": {"name": "flow", "shift": "size"}, "conditioning": "none"}},
        {"data": {"image_size": [9, 7], "channels": 3}, "training": {"ema": {"second_decay": 0.5}}},
    ],
    ids=["edm", "eps", "flow without classes", "odd sizes"],
)
def test_every_kind_trains_resumes_and_evaluates(tmp_path: Path, changes: dict[str, Any]) -> None:
    sampling = {"sampling": {"sampler": "dpmpp", "steps": 2, "block": 2}}
    config = config_of(**{**changes, "diffusion": {**changes.get("diffusion", {}), **sampling}})
    trainer = build_trainer(SPEC, config, SINGLE)
    batches = trainer.batches()
    trainer.train_step(batches)
    torch.save(trainer.state_dict(), tmp_path / "saved.pt")
    trainer.train_step(batches)
    resumed = build_trainer(SPEC, config, SINGLE)
    resumed.load_state_dict(torch.load(tmp_path / "saved.pt", weights_only=True))
    resumed.train_step(resumed.batches())
    assert tree_difference(trainer.state_dict(), resumed.state_dict()) is None
    assert trainer.state.updates == 2
    found = resumed.evaluate("val")
    assert found.write is not None and np.isfinite(found.metrics["loss"])
    assert set(found.write(tmp_path, 2)) == {"grid"} and (tmp_path / "progress.png").is_file()


def test_dropped_classes_are_those_of_their_numbers_and_none_are_in_evaluations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task, told = DiffusionTask(config_of(diffusion={"label_dropout": 0.5}), SINGLE), list[torch.Tensor]()
    batch = task.workers.collate([task.train_data[Draw(index, 0, index)] for index in range(24)])

    def network(x: torch.Tensor, angle: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        told.append(labels)
        return x

    for training in (True, False):
        task.generator.losses(network, batch, training)  # type: ignore[arg-type]
    assert torch.equal(told[0] == 10, batch["drop"] < 0.5) and (told[0] == 10).any()
    assert torch.equal(told[1], batch["label"])


def test_it_shows_what_it_is_trained_on() -> None:
    task = DiffusionTask(config_of(), SINGLE)
    sheet = task.previews()["train_samples"]
    assert sheet.dtype == np.uint8 and sheet.ndim == 3 and sheet.shape[2] == 3
    metadata = task.metadata()
    assert metadata["classes"] == [str(digit) for digit in range(10)] and metadata["images"]["val"] == 360
