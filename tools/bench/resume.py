"""What a resume costs: its later steps beside those of a run never interrupted, and the way into an epoch.

Two trainers of the digits' Swin, of which one goes on from the other's state, take turns of ten steps, the hundredth
after the resume being past. The way into an epoch is the time until the draws of the first micro-batch are known in
the middle of the 91st epoch of a training set as large as ImageNet's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from time import perf_counter

from engine.data.batch_plan import BatchLayout, NaturalOrder
from engine.data.loaders import MicroBatchSampler
from engine.training.trainer import Trainer
from tools.bench.step import build, configured
from tools.bench.timing import Table, interleaved

IMAGENET = 1_281_167
SETTINGS = ["training.precision=fp32", "training.steps=1000000"]


def run(quick: bool = False) -> Table:
    """Measures; `quick` is for seeing that it works: few steps, one round."""
    before = 2 if quick else 100
    whole, resumed = (build(configured(SETTINGS)) for _ in range(2))
    batches = whole.batches()
    for _ in range(before):
        whole.train_step(batches)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    work = {
        ("uninterrupted", "step"): steps(whole, before, 1 if quick else 10),
        ("resumed", "step"): steps(resumed, before, 1 if quick else 10),
        ("resumed", "way into the epoch"): way_in,
    }
    table = Table("resume", "After a resume", "milliseconds", interleaved(work, 1 if quick else 9))
    medians = table.medians()
    table.ratios["resumed / uninterrupted"] = {"step": medians["resumed"]["step"] / medians["uninterrupted"]["step"]}
    return table


def steps(trainer: Trainer, before: int, count: int) -> Callable[[], float]:
    """Milliseconds of a step, the mean of ``count``, after ``before`` that are made now."""
    batches = trainer.batches()
    for _ in range(before):
        trainer.train_step(batches)

    def measure() -> float:
        begin = perf_counter()
        for _ in range(count):
            trainer.train_step(batches)
        return 1000 * (perf_counter() - begin) / count

    return measure


def way_in() -> float:
    """Milliseconds until the first draws in the middle of an epoch are known."""
    layout = BatchLayout(IMAGENET, 1024)
    step = 90 * layout.steps_per_epoch + layout.steps_per_epoch // 2
    begin = perf_counter()
    next(iter(MicroBatchSampler(NaturalOrder(IMAGENET, seed=0), layout, start_step=step)))
    return 1000 * (perf_counter() - begin)
