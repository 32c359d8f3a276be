"""Evaluation, the same during training and on its own, and what it changes in a run."""

from __future__ import annotations

import logging
import math

from torch import nn

from engine.devices.precision import Precision
from engine.distributed.ranks import Ranks
from engine.task.inference import inference_mode
from engine.task.task import Evaluated, Task
from engine.training.selection import Selection
from engine.training.state import RunState

log = logging.getLogger(__name__)


def evaluate(task: Task, model: nn.Module, split: str, precision: Precision, ranks: Ranks) -> Evaluated:
    """Measures ``model`` on ``split``, the same on every rank. The model is left in evaluation mode."""
    with inference_mode(model, precision):
        return task.evaluate(model, split, ranks)


def judge(evaluated: Evaluated, selection: Selection, state: RunState, epoch: float, may_stop: bool) -> bool:
    """Updates a run's state by an evaluation of it: its best result, the plateau's scale, its patience.

    Args:
        epoch: epochs done, with a fraction.
        may_stop: whether the run may end early yet; until then no patience is lost.

    Returns:
        Whether the weights are the best so far.
    """
    state.evaluation_owed, state.findings = False, evaluated.findings
    value = evaluated.metrics[selection.metric]
    best = selection.is_best(value, state.best)
    if best:
        state.best = {"step": state.step, "epoch": epoch, selection.metric: value}
    if math.isnan(value):
        log.warning(
            "%s is not a number: no checkpoint is the best by it, and it never counts as progress", selection.metric
        )
    state.plateau = selection.lower_rate(value, state.plateau)
    if may_stop:
        state.patience = selection.lose_patience(value, state.patience)
        state.stopped_early = selection.out_of_patience(state.patience)
    return best
