"""Evaluation, the same during training and on its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from engine.config.sections import EvaluationConfig, wrong_direction
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
    """Raises a :class:`UserError` if the metric that decides is not measured, or its better values are not as said.

    Args:
        measured: The metrics that there are.
        default: The one that decides where ``config`` names none.
    """
    if config.metric is not None and config.metric not in measured:
        raise UserError(f"evaluation.metric: '{config.metric}' is not measured; there are {', '.join(measured)}")
    if config.mode is not None and (fault := wrong_direction(config.metric or default, config.mode)):
        raise UserError(f"evaluation.mode: {fault}")
