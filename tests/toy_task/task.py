"""Fits a small network to points on a wave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.data.batch_plan import Draw, NaturalOrder
from engine.data.loaders import EvalLoader
from engine.data.workers import WorkerSettings
from engine.distributed.ranks import Ranks
from engine.files import write_atomic
from engine.seed import generator
from engine.task.experiment import Experiment
from engine.task.inference import Measured
from engine.task.task import Evaluated
from tests.toy_task.config import METRICS, CurveConfig


class Points:
    """Sample i is x and a wave's value there; in training with noise that follows from the draw."""

    def __init__(self, count: int, seed: int | None) -> None:
        self.count, self._seed = count, seed

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        x = torch.tensor([6.0 * draw.index / self.count])
        noise = 0.0 if self._seed is None else generator(self._seed, "noise", draw.epoch, draw.position).normal()
        return {"index": torch.tensor(draw.index), "x": x, "y": x.sin() + 0.05 * noise}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))


def measure(model: nn.Module, config: CurveConfig, ranks: Ranks) -> dict[str, float]:
    """The metrics of val, the same for any number of ranks."""
    points = Points(config.points // 3, None)
    rows = [torch.empty(0, 3, device=ranks.device)]
    for batch in EvalLoader(points, points.count, config.evaluation.batch_size, WorkerSettings(), ranks):
        data = {name: value.to(ranks.device) for name, value in batch.data.items()}
        rows.append(torch.cat([data["index"][:, None], data["y"], model(data["x"])], dim=1))
    table = ranks.gather_rows(torch.cat(rows)).double()
    y, said = table[table[:, 0].argsort(), 1:].unbind(1)
    loss = (said - y).square().mean()
    return {"loss": float(loss), "r2": float(1 - loss / y.var(correction=0))}


class CurveTask:
    """See :class:`engine.task.task.Task`."""

    name, metrics = "tests.toy_task", METRICS
    drop_last, slot_multiple, workers = True, 1, WorkerSettings()

    def __init__(self, config: CurveConfig, ranks: Ranks) -> None:
        self._config, seed = config, config.experiment.seed
        self.model = network().to(ranks.device)
        self.train_data = Points(config.points, seed)
        self.train_order = NaturalOrder(config.points, seed)

    def training_step(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": (model(batch["x"]) - batch["y"]).square().mean()}

    def evaluate(self, model: nn.Module, split: str, ranks: Ranks) -> Evaluated:
        return Evaluated(measure(model, self._config, ranks))

    def previews(self) -> Mapping[str, Any]:
        return {}

    def example(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 1, device=next(self.model.parameters()).device),)

    def metadata(self) -> dict[str, Any]:
        return {"points": self._config.points}


class CurveInference:
    """See :class:`engine.task.inference.Inference`."""

    def __init__(self, experiment: Experiment[CurveConfig], ranks: Ranks) -> None:
        self._config, self.model = experiment.config, network().to(ranks.device)
        experiment.load_into(self.model)

    def evaluate(self, split: str, ranks: Ranks) -> Measured:
        metrics = measure(self.model, self._config, ranks)
        return Measured(metrics, lambda folder, title: write_atomic(folder / "metrics.json", json.dumps(metrics)))
