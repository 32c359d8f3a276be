from __future__ import annotations

import numpy as np
import pytest

from engine.data.batch_plan import BatchLayout, NaturalOrder, resolve_accumulation
from engine.errors import UserError


def slots_of_step(layout: BatchLayout, step: int):
    return [layout.slot(step, a, r) for a in range(layout.accumulation) for r in range(layout.world_size)]


def test_natural_order_is_another_permutation_each_epoch_and_seed():
    order = NaturalOrder(100, seed=3)
    assert sorted(order(0)) == list(range(100))
    assert np.array_equal(order(5), NaturalOrder(100, seed=3)(5))
    assert not np.array_equal(order(0), order(1))
    assert not np.array_equal(order(0), NaturalOrder(100, seed=4)(0))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("num_samples", [24, 25, 48, 59, 71])
def test_steps_cover_the_epoch_in_order(num_samples, drop_last, accumulation, world_size):
    layout = BatchLayout(num_samples, 24, accumulation, world_size, drop_last)
    covered = []
    for step in range(layout.steps_per_epoch):
        slots = slots_of_step(layout, step)
        positions = [p for slot in slots if slot.num_samples for p in slot.positions]
        assert positions == list(range(step * 24, min(step * 24 + 24, num_samples)))
        assert all(slot.step_samples == len(positions) for slot in slots)
        assert sum(slot.weight for slot in slots) == pytest.approx(1)
        assert all(1 <= len(slot.positions) <= layout.slot_size for slot in slots)
        covered += positions
    assert len(covered) == (num_samples // 24 * 24 if drop_last else num_samples)


def test_slots_follow_the_rule_of_micro_steps_and_ranks():
    layout = BatchLayout(100, 24, accumulation=2, world_size=3)
    slot = layout.slot(step=layout.steps_per_epoch + 1, micro_step=1, rank=2)
    assert (slot.epoch, slot.step_in_epoch, slot.micro_step) == (1, 1, 1)
    assert slot.positions == range(24 + 5 * 4, 24 + 6 * 4)


def test_a_rank_without_samples_repeats_the_first_slot_with_weight_zero():
    layout = BatchLayout(24 + 5, 24, accumulation=2, world_size=3, drop_last=False)
    slots = slots_of_step(layout, 1)
    assert [slot.num_samples for slot in slots] == [4, 1, 0, 0, 0, 0]
    assert [slot.positions for slot in slots[2:]] == [slots[0].positions] * 4
    assert [slot.weight for slot in slots] == [4 / 5, 1 / 5, 0, 0, 0, 0]
    assert layout.smallest_slot == 1


@pytest.mark.parametrize(("num_samples", "smallest"), [(48, 4), (26, 2), (28, 4), (29, 1), (31, 3)])
def test_smallest_slot_is_the_smallest_that_occurs(num_samples, smallest):
    layout = BatchLayout(num_samples, 24, accumulation=3, world_size=2, drop_last=False)
    slots = [slot for step in range(layout.steps_per_epoch) for slot in slots_of_step(layout, step)]
    assert min(slot.num_samples for slot in slots if slot.num_samples) == smallest == layout.smallest_slot
    if num_samples >= 24:
        assert BatchLayout(num_samples, 24, 3, 2, drop_last=True).smallest_slot == 4


def test_an_empty_or_too_small_training_set_is_a_user_error():
    with pytest.raises(UserError, match="no samples"):
        BatchLayout(0, 8)
    with pytest.raises(UserError, match=r"8 is more than the 7 training samples.*data\.drop_last=false"):
        BatchLayout(7, 8)
    assert BatchLayout(7, 8, drop_last=False).steps_per_epoch == 1


@pytest.mark.parametrize(
    ("batch", "bound", "accumulation", "ranks", "multiple", "expected"),
    [
        (128, None, "auto", 1, 1, (1, 128)),
        (128, None, "auto", 4, 1, (1, 32)),
        (128, 32, "auto", 2, 1, (2, 32)),
        (128, 33, "auto", 2, 1, (2, 32)),
        (96, 40, "auto", 1, 1, (3, 32)),
        (128, None, 4, 2, 1, (4, 16)),
        (128, 16, 4, 2, 1, (4, 16)),
        (100, 30, "auto", 1, 1, (4, 25)),
        (100, 30, "auto", 1, 2, (5, 20)),
        (10**18, None, "auto", 1, 2, (1, 10**18)),
    ],
)
def test_accumulation_is_the_smallest_that_fits(batch, bound, accumulation, ranks, multiple, expected):
    assert resolve_accumulation(batch, bound, accumulation, ranks, multiple) == expected


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((100, None, "auto", 3), "100 cannot be divided into 3 ranks; the nearest that can: 99 or 102"),
        ((100, None, 4, 3), "3 ranks x 4 accumulation steps; the nearest that can: 96 or 108"),
        ((2, None, "auto", 3), "the nearest that can: 3"),
        ((102, None, "auto", 2, 2), "micro-batches of a multiple of 2 samples; the nearest that can: 100 or 104"),
        ((128, 16, 2, 2), "leaves 32 samples to a forward pass, more than training.micro_batch_size .16.; .*least 4"),
        ((128, 1, "auto", 2, 2), "micro_batch_size: 1 is too small; at least 2"),
    ],
)
def test_batches_that_cannot_be_divided_name_the_nearest_that_can(arguments, text):
    with pytest.raises(UserError, match=text):
        resolve_accumulation(*arguments)
