"""A task of a few numbers, to see what the training loop does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.commands.build import assemble_trainer
from engine.config.run import DistributedConfig, RunConfig
from engine.config.training import TrainingConfig
from engine.data.batch_plan import BatchLayout, Draw, NaturalOrder, resolve_accumulation
from engine.data.workers import WorkerSettings
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.images.image_io import ImageArray
from engine.model.wrap import prepare_model, wrap_model
from engine.task.metrics import Metrics
from engine.task.task import Evaluated
from engine.training.recorder import Recorder
from engine.training.state import RunState
from engine.training.trainer import Trainer

BLACK = np.zeros((4, 4, 3), np.uint8)
SINGLE = Ranks(Layout(), torch.device("cpu"))


class ToyData:
    """Sample i is a random vector of 6 numbers and a fixed linear map's image of it; ``bad`` ones hold infinities."""

    def __init__(self, size: int, bad: tuple[int, ...] = ()) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(size, 6, generator=generator)
        self.y = self.x @ torch.randn(6, 2, generator=generator)
        self.x[list(bad)] = float("inf")

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        return {"x": self.x[draw.index], "y": self.y[draw.index], "index": draw.index}


class ToyTask:
    """Regression; remembers the samples of each call of ``training_step``."""

    name, drop_last, slot_multiple = "toy", True, 1
    metrics = Metrics({"loss": "min", "score": "max"}, "loss")
    workers = WorkerSettings()

    def __init__(self, model: nn.Module, size: int = 24, bad: tuple[int, ...] = (), drop_last: bool = True) -> None:
        self.model = model
        self.train_data = ToyData(size, bad)
        self.train_order = NaturalOrder(size, 0)
        self.drop_last = drop_last
        self.seen: list[list[int]] = []
        self.scores: list[float] = []
        """What evaluations give as ``score``, one after the other."""

    def training_step(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.seen.append(batch["index"].tolist())
        return {"loss": (model(batch["x"]) - batch["y"]).square().mean()}

    def evaluate(self, model: nn.Module, split: str, ranks: Ranks) -> Evaluated:
        good = self.train_data.x.isfinite().all(dim=1)
        loss = (model(self.train_data.x[good]) - self.train_data.y[good]).square().mean()
        metrics = {"loss": float(loss), "score": self.scores.pop(0) if self.scores else 0.0}
        return Evaluated(metrics, {"threshold": metrics["score"]}, lambda: {"curve": BLACK})

    def previews(self) -> Mapping[str, ImageArray]:
        return {"train_samples": BLACK}

    def example(self) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(1, 6),)

    def metadata(self) -> dict[str, Any]:
        return {}


def no_inference(experiment: Any, ranks: Ranks) -> Any:
    """The toy is trained, and never used."""
    raise NotImplementedError


class Memory(Recorder):
    """Keeps in memory what a folder would be given."""

    def __init__(self) -> None:
        self.train: list[dict[str, float]] = []
        self.val: list[dict[str, float]] = []
        self.saved: list[dict[str, Any]] = []
        self.shown: list[tuple[int, str]] = []
        self.written: list[tuple[int, str]] = []

    def trained(self, state: RunState, epoch: float, metrics: dict[str, float]) -> None:
        self.train.append({"step": state.step, "epoch": epoch, **metrics})

    def evaluated(self, state: RunState, epoch: float, split: str, metrics: dict[str, float]) -> None:
        self.val.append({"step": state.step, "epoch": epoch, **metrics})

    def show(self, state: RunState, split: str, draw: Callable[[], Mapping[str, ImageArray]]) -> None:
        self.shown += [(state.step, f"{split}/{name}") for name in draw()]

    def write(self, state: RunState, split: str, write: Callable[[Path, int], Mapping[str, ImageArray]]) -> None:
        self.written += [(state.step, name) for name in write(Path("results"), state.step)]

    def keep(self, draw: Callable[[], Mapping[str, ImageArray]]) -> None:
        self.shown += [(0, name) for name in draw()]

    def save(self, state: RunState, content: dict[str, Any], best: bool) -> None:
        self.saved.append({"step": state.step, "best": best})


def toy_model(*extra: nn.Module) -> nn.Module:
    """Two linear layers with ``extra`` between them, always with the same initial weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *extra, nn.Tanh(), nn.Linear(8, 2))


def toy_config(**sections: dict[str, Any]) -> RunConfig:
    """Eight samples a step, a record each step, fp32; ``sections`` win."""
    base: dict[str, dict[str, Any]] = {
        "training": {"global_batch_size": 8, "epochs": 2, "precision": "fp32"},
        "logging": {"every_steps": 1},
        "optimizer": {"lr": 0.01},
        "schedule": {"name": "constant"},
    }
    merged = {name: {**base.get(name, {}), **sections.get(name, {})} for name in {**base, **sections}}
    return RunConfig.model_validate(merged)


def prepare_network(
    model: nn.Module, training: TrainingConfig, ranks: Ranks, distributed: DistributedConfig | None = None
) -> nn.Module:
    """From the bare model to the one that is trained, as :class:`engine.training.learner.Learner` makes it."""
    return wrap_model(prepare_model(model, training, distributed or DistributedConfig(), ranks), training, ranks)


def toy_trainer(task: ToyTask, config: RunConfig, ranks: Ranks = SINGLE) -> Trainer:
    """A trainer of ``task``, as :func:`engine.commands.build.build_trainer` puts it together."""
    training = config.training
    accumulation, _ = resolve_accumulation(
        training.global_batch_size, training.micro_batch_size, training.accumulation, ranks.world_size
    )
    size = task.train_order.num_samples
    layout = BatchLayout(size, training.global_batch_size, accumulation, ranks.world_size, task.drop_last)
    return assemble_trainer(task, layout, config, ranks)
