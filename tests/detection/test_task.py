"""Detection as a task: what it learns, what it shows, and that ranks change nothing."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.config import DetectionConfig
from detection.data.sample import collate
from detection.report import coco_metrics
from detection.spec import SPEC
from detection.task import DetectionTask
from engine.commands.build import build_trainer
from engine.config.load import load_config
from engine.data.batch_plan import Draw
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from tests.detection.small import SHAPES, SWIN_SHAPE, config_of, write_config
from tests.distributed import run_ranks
from tools.chaos.compare import tree_difference

SINGLE = Ranks(Layout(), torch.device("cpu"))
NECKS = ("none", "fpn", "pan", "dense_fpn")
RESNETS, SWINS = ("resnet50_a", "resnet50_b"), ("swin_a", "swin_b")


def small_task(**changes: dict) -> DetectionTask:
    torch.manual_seed(0)
    return DetectionTask(config_of(**changes), SINGLE)


def batch_of(task: DetectionTask, count: int = 6) -> dict[str, Tensor]:
    return collate([task.train_data[Draw(index, 0, index)] for index in range(count)])


def losses_on_one_batch(task: DetectionTask, steps: int, lr: float) -> list[float]:
    """Losses of a training on the same few images again and again."""
    batch, losses = batch_of(task), []
    optimizer = torch.optim.AdamW(task.model.parameters(), lr, weight_decay=0.0)
    task.model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 10, 2 * (steps - step) / steps)
        loss = task.training_step(task.model, batch)["loss"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), 5.0)
        optimizer.step()
    return losses


@pytest.mark.parametrize(
    ("detection", "loss"),
    [
        ({"backbone": "timm/test_byobnet", "neck": "fpn", "neck_channels": 32}, {}),
        ({"backbone": "swin_b", "neck": "none", "swin": SWIN_SHAPE, "drop_path": 0.0}, {"classification": "focal"}),
    ],
)
def test_one_batch_is_learnt_by_heart(detection: dict, loss: dict) -> None:
    losses = losses_on_one_batch(small_task(detection=detection, loss=loss), steps=100, lr=3e-3)
    assert losses[-1] < 0.05 * losses[0], losses[::10]


@pytest.mark.full
@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("backbone", [*RESNETS, *SWINS])
def test_the_sixteen_learn_one_batch_by_heart(backbone: str, neck: str) -> None:
    detection: dict[str, Any] = {"backbone": backbone, "neck": neck}
    if backbone in SWINS:
        detection |= {"swin": SWIN_SHAPE, "drop_path": 0.0}
    if neck != "none":
        detection |= {"neck_channels": 64}  # the few channels of other tests hold too little to know a batch by heart
    losses = losses_on_one_batch(small_task(detection=detection), steps=150, lr=3e-4 if backbone in RESNETS else 3e-3)
    assert losses[-1] < 0.03 * losses[0], losses[::10]


COMBINATIONS = [(backbone, neck) for backbone in (*RESNETS, *SWINS) for neck in NECKS]
TODAY = date.today().toordinal() % 8
"""Each day has a ResNet and a Swin of its own; `make test-full` runs all."""


@pytest.mark.parametrize(
    ("backbone", "neck"),
    [
        pytest.param(*combination, marks=() if number % 8 == TODAY else pytest.mark.full)
        for number, combination in enumerate(COMBINATIONS)
    ],
)
def test_the_sixteen_train_save_resume_and_evaluate(backbone: str, neck: str, tmp_path: Path) -> None:
    shape = {"swin": SWIN_SHAPE, "drop_path": 0.2} if backbone in SWINS else {}
    config = config_of(detection={"backbone": backbone, "neck": neck, **shape})
    trainer = build_trainer(SPEC, config, SINGLE)
    batches = trainer.batches()
    trainer.train_step(batches)
    torch.save(trainer.state_dict(), tmp_path / "saved.pt")
    trainer.train_step(batches)
    resumed = build_trainer(SPEC, config, SINGLE)
    resumed.load_state_dict(torch.load(tmp_path / "saved.pt", weights_only=True))
    resumed.train_step(resumed.batches())
    assert tree_difference(trainer.state_dict(), resumed.state_dict()) is None
    assert trainer.state.updates == 2 and trainer.state.window.means()["loss"] > 0
    assert len(resumed.evaluate("val").metrics) == 12


def test_a_batch_without_objects_has_a_finite_loss_and_gradients_everywhere() -> None:
    task = small_task(data={**SHAPES, "max_objects": 1})
    empty = [i for i in range(24) if not len(task.train_data[Draw(i, 0, i)]["labels"])][:4]
    assert len(empty) == 4
    batch = collate([task.train_data[Draw(index, 0, index)] for index in empty])
    results = task.training_step(task.model, batch)
    results["loss"].backward()
    assert results["loss"] > 0 and results["loss_boxes"] == 0
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def some_steps(ranks: Ranks, config: str, overrides: list[str], stop: int = 6) -> dict[str, Tensor]:
    """Losses of the first steps, and what each sample was: step, index, sum of pixels, number and sum of boxes."""
    loaded = load_config(DetectionConfig, Path(config), overrides)
    trainer = build_trainer(SPEC, loaded, ranks)
    task, rows = trainer.task, []
    original = task.training_step

    def remember(model, batch):
        pixels = batch["image"].double().mul(torch.arange(batch["image"][0].numel()).view(3, 48, 48)).sum((1, 2, 3))
        boxes = batch["boxes"].double().sum((1, 2))
        step = torch.full_like(pixels, trainer.state.step)
        rows.append(torch.stack([step, batch["index"].double(), pixels, batch["mask"].sum(1).double(), boxes], dim=1))
        return original(model, batch)

    task.training_step = remember
    batches, losses = trainer.batches(), []
    while trainer.state.step < stop:
        trainer.state.window = type(trainer.state.window)()
        trainer.train_step(batches)
        trainer.settle()
        losses.append(trainer.state.window.means()["loss"])
    return {"losses": torch.tensor(losses), "samples": torch.cat(rows)}


def in_order(parts: list[dict[str, Tensor]]) -> Tensor:
    samples = torch.cat([part["samples"] for part in parts])
    return samples[sorted(range(len(samples)), key=lambda i: tuple(samples[i, :2].tolist()))]


NO_BATCH_NORM = {"backbone": "swin_b", "neck": "pan", "neck_channels": 16, "swin": SWIN_SHAPE, "drop_path": 0.0}


def test_ranks_accumulation_and_workers_change_neither_samples_nor_losses(tmp_path: Path) -> None:
    """A quarter of the images has no objects, so that some ranks' batches have none."""
    sections = {"augmentation": {"mosaic": {"probability": 0.3}}, "data": {**SHAPES, "max_objects": 1}}
    config = str(write_config(tmp_path, detection=NO_BATCH_NORM, training={"global_batch_size": 4}, **sections))
    whole = some_steps(SINGLE, config, [])
    alone = [row for row in whole["samples"].view(6, 4, 5) for row in row.view(2, 2, 5) if row[:, 3].sum() == 0]
    assert alone, "no rank of two has a batch without objects"
    others = {
        "2 accumulated": [some_steps(SINGLE, config, ["training.accumulation=2"])],
        "1 worker": [some_steps(SINGLE, config, ["data.workers=1"])],
        "2 ranks": run_ranks(2, some_steps, config, []),
    }
    for name, parts in others.items():
        assert torch.equal(in_order(parts), in_order([whole])), name
        for part in parts:
            torch.testing.assert_close(part["losses"], whole["losses"], rtol=1e-5, atol=0, msg=name)


def evaluated(ranks: Ranks, config: str) -> dict[str, Tensor]:
    loaded = load_config(DetectionConfig, Path(config))
    torch.manual_seed(0)
    task = DetectionTask(loaded, ranks)
    task.model.eval()
    with torch.inference_mode():
        found = task._detector.predict(task.model, task._opened["val"], ranks)
        metrics = task.evaluate(task.model, "val", ranks).metrics
    columns = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in vars(found).items()}
    return {**columns, "metrics": torch.tensor(list(metrics.values()), dtype=torch.float64)}


def test_101_images_are_evaluated_once_each_on_any_number_of_ranks(tmp_path: Path) -> None:
    config = str(write_config(tmp_path, data={**SHAPES, "val_images": 101}, evaluation={"batch_size": 8}))
    one = evaluated(SINGLE, config)
    assert len(one["starts"]) == 102 and one["starts"][-1] > 1000
    for world_size in (2, 3):
        for part in run_ranks(world_size, evaluated, config):
            assert part.keys() == one.keys()
            assert all(torch.equal(part[name].nan_to_num(-1), one[name].nan_to_num(-1)) for name in one), world_size


def test_what_it_shows_and_keeps() -> None:
    task = small_task()
    sheet = task.previews()["train_samples"]
    assert sheet.dtype == np.uint8 and sheet.ndim == 3 and sheet.shape[2] == 3
    task.model.eval()
    with torch.inference_mode():
        found = task.evaluate(task.model, "val", SINGLE)
    assert tuple(found.metrics) == tuple(task.metrics.directions) and found.metrics["AP"] >= 0
    assert {"confusion_matrix", "best_images", "worst_mistakes"} >= set(found.draw())
    metadata = task.metadata()
    assert (metadata["classes"], metadata["category_ids"]) == (["circle", "square"], [1, 2])
    assert metadata["preprocessing"]["height"] == 48
    assert metadata["images"] == {"train": 24, "val": 10}  # what a resumed run compares its data with
    assert metadata["objects"]["val"] == len(task._opened["val"].annotations.boxes)


def test_figures_are_worked_out_in_a_phase_that_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks, phases, found = Ranks(Layout(), torch.device("cpu")), list[str](), coco_metrics.coco_evaluate

    def evaluate(*given: Any) -> Any:
        phases.append(ranks.heartbeat.place.phase)
        return found(*given)

    monkeypatch.setattr(coco_metrics, "coco_evaluate", evaluate)
    task = DetectionTask(config_of(), ranks)
    with torch.inference_mode():
        task.evaluate(task.model.eval(), "val", ranks)
    assert phases == ["measure"]
