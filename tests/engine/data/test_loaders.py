from __future__ import annotations

import itertools
import signal

import numpy as np
import pytest
import torch

from engine.data.batch_plan import BatchLayout, Draw, NaturalOrder
from engine.data.loaders import EvalLoader, EvaluationStopped, MicroBatchSampler, TrainLoader
from engine.data.workers import WorkerSettings
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.seed import derive, generator
from tests.distributed import run_ranks

CPU = torch.device("cpu")


class Alone(Ranks):
    """A rank whose peers are only said to be there."""

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


class Noise:
    """A data set whose samples are random as augmented images are."""

    def __getitem__(self, draw: Draw):
        rng = generator(derive(1, draw.epoch, draw.position))
        return {
            "index": draw.index,
            "position": draw.position,
            "epoch": draw.epoch,
            "image": torch.tensor(rng.random(3)),
        }


def sampler(layout: BatchLayout, rank: int = 0, **steps) -> MicroBatchSampler:
    return MicroBatchSampler(NaturalOrder(layout.num_samples, seed=7), layout, rank, **steps)


def read_steps(num_steps: int, *, ranks=1, accumulation=1, workers=0, start_step=0, drop_last=False, n=59):
    """For each global step, the samples that count by position: {position: (index, epoch, image)}."""
    layout = BatchLayout(n, 24, accumulation, ranks, drop_last)
    steps: dict[int, dict[int, tuple]] = {}
    for rank in range(ranks):
        drawn = sampler(layout, rank, start_step=start_step, stop_step=start_step + num_steps)
        for batch in TrainLoader(Noise(), drawn, WorkerSettings(workers)):
            data, slot = batch.data, batch.slot
            assert data["position"].tolist() == list(slot.positions)
            rows = zip(data["index"].tolist(), data["epoch"].tolist(), data["image"].tolist(), strict=True)
            counted = dict(zip(slot.positions, rows, strict=True)) if slot.num_samples else {}
            assert not counted.keys() & steps.setdefault(slot.step, {}).keys()
            steps[slot.step] |= counted
    return steps


REFERENCE = read_steps(7)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_every_layout_reads_the_same_samples_in_each_step(ranks, accumulation):
    assert read_steps(7, ranks=ranks, accumulation=accumulation) == REFERENCE


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_reads_the_same(workers):
    assert read_steps(7, workers=workers, accumulation=2) == REFERENCE


@pytest.mark.parametrize("start_step", [1, 2, 3, 5])
def test_starting_at_a_step_goes_on_as_if_never_stopped(start_step):
    resumed = read_steps(7 - start_step, start_step=start_step)
    assert resumed == {step: samples for step, samples in REFERENCE.items() if step >= start_step}


def test_epochs_contain_each_sample_once_and_differ():
    epochs = [[REFERENCE[step] for step in steps] for steps in ((0, 1, 2), (3, 4, 5))]
    orders = [[row[0] for step in epoch for row in step.values()] for epoch in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(59))
    assert orders[0] != orders[1]
    assert {row[1] for step in epochs[1] for row in step.values()} == {1}


def test_drop_last_leaves_the_rest_of_an_epoch_out():
    steps = read_steps(4, drop_last=True)
    assert [len(samples) for samples in steps.values()] == [24, 24, 24, 24]
    assert [next(iter(samples.values()))[1] for samples in steps.values()] == [0, 0, 1, 1]


def test_without_a_last_step_there_is_no_end():
    loader = TrainLoader(Noise(), sampler(BatchLayout(5, 4)), WorkerSettings())
    assert [batch.slot.step for batch in itertools.islice(loader, 20)] == list(range(20))


def test_a_start_behind_the_end_reads_nothing():
    assert list(sampler(BatchLayout(5, 4), start_step=3, stop_step=2)) == []


def test_jumping_into_a_large_epoch_shuffles_once_and_reads_no_sample():
    shuffled = []

    class Counted(NaturalOrder):
        def __call__(self, epoch):
            shuffled.append(epoch)
            return super().__call__(epoch)

    layout = BatchLayout(1_281_167, 1024)
    order = Counted(1_281_167, seed=0)
    step = 250 * layout.steps_per_epoch + 700
    first = next(iter(MicroBatchSampler(order, layout, start_step=step)))
    assert shuffled == [250]
    indices = NaturalOrder(1_281_167, seed=0)(250)[700 * 1024 : 701 * 1024]
    assert [draw.index for draw in first] == indices.tolist()
    assert (first[0].epoch, first[0].position) == (250, 700 * 1024)


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (2, 0), (3, 0), (20, 0), (1, 2), (3, 2)])
def test_evaluation_blocks_are_the_same_on_any_number_of_ranks(world_size, workers):
    blocks = {}
    for rank in range(world_size):
        loader = EvalLoader(Noise(), 101, 8, WorkerSettings(workers), Alone(Layout(rank, world_size), CPU))
        found = list(loader)
        assert len(found) == len(loader)
        for batch in found:
            assert batch.indices.tolist() == batch.data["index"].tolist()
            assert batch.indices[0] // 8 % world_size == rank
            blocks[int(batch.indices[0])] = batch
    assert np.concatenate([blocks[first].indices for first in sorted(blocks)]).tolist() == list(range(101))
    assert [len(blocks[first].indices) for first in sorted(blocks)] == [8] * 12 + [5]


def test_evaluating_again_reads_the_same():
    loader = EvalLoader(Noise(), 10, 4, WorkerSettings(), Ranks(Layout(), CPU))
    once, again = ([batch.data["image"] for batch in loader] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_each_block_of_an_evaluation_is_a_sign_of_life():
    ranks = Ranks(Layout(), CPU)
    ticks = [ranks.heartbeat.ticks for _ in EvalLoader(Noise(), 10, 2, WorkerSettings(), ranks)]
    assert len(set(ticks)) == 5


def evaluate_until_stopped(ranks: Ranks, stopping_rank: int) -> int:
    """Blocks that this rank evaluated when one of them was asked to stop in its second; -1 if it went to the end."""
    seen = 0
    try:
        for _ in EvalLoader(Noise(), 100, 4, WorkerSettings(), ranks):
            seen += 1
            if ranks.rank == stopping_rank and seen == 2:
                ranks.stop.signal = signal.SIGTERM
    except EvaluationStopped:
        return seen
    return -1


def test_all_ranks_abandon_an_evaluation_that_one_is_to_stop():
    assert run_ranks(2, evaluate_until_stopped, 1) == [13, 2]


def test_an_evaluation_that_nobody_stops_goes_to_its_end():
    assert run_ranks(2, evaluate_until_stopped, 5) == [-1, -1]
