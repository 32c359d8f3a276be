"""Evaluation, the same during training and on its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from engine.config.sections import EvaluationConfig, metric_fault
from engine.devices.precision import Precision
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.training.task import Evaluated, Task


def evaluate(task: Task, model: nn.Module, split: str, precision: Precision, ranks: Ranks) -> Evaluated:
    """Measures ``model`` on ``split``, the same on every rank. The model is left in evaluation mode."""
    with inference(model, precision):
        return task.evaluate(model, split, ranks)


@contextmanager
def inference(model: nn.Module, precision: Precision) -> Iterator[None]:
    """Evaluation mode, no gradients, and the run's arithmetic."""
    model.eval()
    with torch.inference_mode(), precision.autocast():
        yield


def check_metric(config: EvaluationConfig, measured: Collection[str], default: str) -> None:
    """Raises a :class:`UserError` for a :func:`engine.config.sections.metric_fault`."""
    if fault := metric_fault(config, measured, default):
        raise UserError(fault)
