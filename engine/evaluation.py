"""Evaluation, the same during training and on its own."""

from __future__ import annotations

import torch
from torch import nn

from engine.dist import Ranks
from engine.precision import Precision
from engine.task import Task


def evaluate(task: Task, model: nn.Module, split: str, precision: Precision, ranks: Ranks) -> dict[str, float]:
    """Metrics of ``model`` on ``split``, the same on every rank. The model is left in evaluation mode."""
    model.eval()
    with torch.inference_mode(), precision.autocast():
        return task.evaluate(model, split, ranks)


def default_mode(metric: str) -> str:
    """Whether more (``max``) or less (``min``) of a metric is better."""
    return "min" if "loss" in metric or "error" in metric else "max"
