"""A task that writes down which samples it is given, in which step; all else is that of the task it stands for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from engine.config.run import RunConfig
from engine.data.batch_plan import Draw
from engine.data.workers import SampleReader
from engine.distributed.heartbeat import Heartbeat
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.task.spec import TaskSpec
from engine.task.task import Task
from tools.chaos.diary import FOLDER, DiaryWriter, Epoch

DRAWS, READER = "witness_draws", "witness_reader"
"""What a batch carries besides the task's own: (B, 3) index, epoch and position of its samples; who read them."""


@dataclass(frozen=True)
class DrawnReader:
    """Keeps each sample's draw beside it."""

    reader: SampleReader

    def __getitem__(self, draw: Draw) -> tuple[Any, Draw]:
        return self.reader[draw], draw


@dataclass(frozen=True)
class DrawnCollate:
    """Collates the samples as the task does and adds their draws."""

    collate: Callable[[list[Any]], dict[str, Tensor]]

    def __call__(self, drawn: list[tuple[Any, Draw]]) -> dict[str, Tensor]:
        batch = self.collate([sample for sample, _ in drawn])
        draws = [[draw.index, draw.epoch, draw.position] for _, draw in drawn]
        return {**batch, DRAWS: torch.tensor(draws), READER: torch.tensor(os.getpid())}


class WitnessedTask:
    """Stands for ``task``; see :class:`engine.task.task.Task`. ``heartbeat`` says which step it is in."""

    def __init__(self, task: Task, heartbeat: Heartbeat, diary: DiaryWriter) -> None:
        self._task, self._heartbeat, self._diary = task, heartbeat, diary
        self._step, self._micro_step = -1, 0
        self.train_data = DrawnReader(task.train_data)
        self.workers = replace(task.workers, collate=DrawnCollate(task.workers.collate))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def training_step(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        step = self._heartbeat.place.step
        self._step, self._micro_step = step, self._micro_step + 1 if step == self._step else 0
        own = {name: tensor for name, tensor in batch.items() if name not in (DRAWS, READER)}
        self._diary.fed(step, self._micro_step, int(batch[READER]), batch[DRAWS].tolist())
        return self._task.training_step(model, own)


def witnessed(spec: TaskSpec, config: RunConfig, ranks: Ranks) -> Task:
    """Builds the task of ``spec`` so that it keeps a diary in the folder that the environment names.

    Raises:
        UserError: the environment names no folder.
    """
    if not os.environ.get(FOLDER):
        raise UserError(f"{FOLDER} is not set; this module is for python -m tools.chaos, which sets it")
    task = spec.task(config, ranks)
    epoch = Epoch(task.train_order.num_samples, config.training.global_batch_size, task.drop_last)
    diary = DiaryWriter(Path(os.environ[FOLDER]), ranks.rank, epoch)
    return cast(Task, WitnessedTask(task, ranks.heartbeat, diary))
