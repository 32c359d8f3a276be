"""Evaluation, the same during training and on its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from engine.dist import Ranks
from engine.errors import UserError
from engine.precision import Precision
from engine.settings import LESS_IS_BETTER, EvaluationConfig, metric_fault
from engine.task import Evaluated, Task


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


def default_mode(metric: str) -> str:
    """Whether more (``max``) or less (``min``) of a metric is better."""
    return "min" if any(part in metric for part in LESS_IS_BETTER) else "max"


def check_metric(config: EvaluationConfig, measured: Collection[str], default: str) -> None:
    """Raises a :class:`UserError` for a :func:`engine.settings.metric_fault`."""
    if fault := metric_fault(config, measured, default):
        raise UserError(fault)
