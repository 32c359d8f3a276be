"""What a resume costs: its later steps beside those of a run never interrupted, and the way into an epoch.

Two trainers of the digits' Swin, of which one goes on from the other's state, take turns of ten steps, the hundredth
after the resume being past. The way into an epoch is the time until the draws of the first micro-batch are known in
the middle of the 91st epoch of a training set as large as ImageNet's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from classification.spec import SPEC
from engine.data.batch_plan import BatchLayout, NaturalOrder
from engine.data.loaders import MicroBatchSampler
from engine.training.trainer import Trainer
from tools.bench.step import build, configured
from tools.bench.timing import Table, interleaved, timed

IMAGENET = 1_281_167


def run(quick: bool = False) -> Table:
    """Runs the benchmark; ``quick``: few steps, one round."""
    before, count = (2, 1) if quick else (100, 10)
    config = configured(["training.precision=fp32", "training.steps=1000000"])
    whole, resumed = (build(SPEC, config) for _ in range(2))
    _advanced(whole, before)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    work = {
        ("uninterrupted", "step"): timed(_advanced(whole, before), count),
        ("resumed", "step"): timed(_advanced(resumed, before), count),
        ("resumed", "way into the epoch"): timed(way_in),
    }
    table = Table("resume", "After a resume", "milliseconds", interleaved(work, 1 if quick else 9))
    table.compare_rows("resumed", "uninterrupted", ["step"])
    return table


def _advanced(trainer: Trainer, steps: int) -> Callable[[], object]:
    """Makes ``steps`` steps from where the trainer is; returns what makes the next."""
    batches = trainer.batches()
    for _ in range(steps):
        trainer.train_step(batches)
    return lambda: trainer.train_step(batches)


def way_in() -> None:
    """Goes the way to the first draws in the middle of an epoch."""
    layout = BatchLayout(IMAGENET, 1024)
    step = 90 * layout.steps_per_epoch + layout.steps_per_epoch // 2
    next(iter(MicroBatchSampler(NaturalOrder(IMAGENET, seed=0), layout, start_step=step)))
