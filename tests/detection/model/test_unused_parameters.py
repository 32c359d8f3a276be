"""The first pass through a new detector: parts without use, and sizes that do not fit."""

from __future__ import annotations

import pytest
import torch

from detection.model.unused_parameters import first_pass
from detection.spec import SPEC
from engine.commands.build import build_trainer
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from tests.detection.small import SHAPES, TINY, config_of
from tests.detection.test_task import small_task
from tests.distributed import run_ranks

HRNET = {"backbone": "timm/hrnet_w18_small", "neck": "none"}
LARGER = {**SHAPES, "image_size": 64}


def test_what_is_not_taken_is_not_trained() -> None:
    task = small_task(detection=HRNET, data=LARGER)
    frozen = {name for name, parameter in task.model.named_parameters() if not parameter.requires_grad}
    assert any(name.startswith("backbone.body.incre_modules.0.") for name in frozen)
    assert not any(name.startswith("backbone.body.incre_modules.1.") for name in frozen)
    assert task.model.training and not first_pass(task._detector.model, (64, 64), torch.device("cpu"))


def test_nothing_is_taken_out_of_models_that_are_used_whole() -> None:
    task = small_task(detection=TINY["detection"])
    assert all(parameter.requires_grad for parameter in task.model.parameters())


def test_a_size_that_the_backbone_cannot_take_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"data.image_size: the backbone cannot take images of 48 x 48 pixels \(.*of 32"
    ):
        small_task(detection=HRNET)


def losses(ranks: Ranks) -> list[float]:
    config = config_of(detection=HRNET, data=LARGER, training={"steps": 3, "global_batch_size": 8, "precision": "fp32"})
    trainer, found = build_trainer(SPEC, config, ranks), []
    batches = trainer.batches()
    for _ in range(3):
        trainer.state.window = type(trainer.state.window)()
        trainer.train_step(batches)
        trainer.settle()
        found.append(trainer.state.window.means()["loss"])
    return found


def test_two_ranks_train_a_model_with_unused_parts() -> None:
    one, other = run_ranks(2, losses)
    assert one == other and len(one) == 3
    assert one[0] == pytest.approx(losses(Ranks(Layout(), torch.device("cpu")))[0], rel=0.05)
