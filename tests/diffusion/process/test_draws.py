from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion.process.draws import draw_evaluation, draw_training, stratified_time, with_dropped
from engine.data.batch_plan import Draw

SHAPE = (3, 8, 8)


def test_draws_follow_from_seed_epoch_and_position_alone() -> None:
    """Which sample it is does not matter, nor who asks, nor what was drawn before."""
    first, again = draw_training(1, Draw(5, 2, 7), SHAPE), draw_training(1, Draw(9, 2, 7), SHAPE)
    assert first.time == again.time and first.drop == again.drop and np.array_equal(first.noise, again.noise)
    others = [draw_training(*keys, SHAPE) for keys in ((2, Draw(5, 2, 7)), (1, Draw(5, 3, 7)), (1, Draw(5, 2, 8)))]
    others.append(draw_evaluation(1, 7, SHAPE))
    for other in others:
        assert first.time != other.time and first.drop != other.drop
        assert abs(np.corrcoef(first.noise.ravel(), other.noise.ravel())[0, 1]) < 0.3


def test_numbers_are_uniform_and_noise_is_normal() -> None:
    draws = [draw_training(0, Draw(0, 0, position), SHAPE) for position in range(2000)]
    for numbers in (np.array([draw.time for draw in draws]), np.array([draw.drop for draw in draws])):
        assert abs(np.mean(numbers) - 0.5) < 0.02 and abs(np.std(numbers) - 12**-0.5) < 0.02
    noise = np.stack([draw.noise for draw in draws])
    assert noise.dtype == np.float32 and abs(noise.mean()) < 0.005 and abs(noise.std() - 1) < 0.005


@pytest.mark.parametrize("first", [0, 700, 10_000_000])
@pytest.mark.parametrize("count", [5, 7, 12, 500])
def test_times_of_evaluations_leave_no_part_empty(count: int, first: int) -> None:
    times = np.array([draw_evaluation(0, index, (1, 1, 1)).time for index in range(first, first + count)])
    shares = np.bincount((times * 4).astype(int), minlength=4) / count
    assert shares.min() > 0 and shares.max() - shares.min() <= 3 / count


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 64, 100, 128])
def test_stratified_times_lie_at_equal_distances_over_the_global_batch(batch: int) -> None:
    times = np.array([stratified_time(3, Draw(0, 1, position), batch) for position in range(batch, 2 * batch)])
    assert ((times >= 0) & (times < 1)).all()
    gaps = np.diff(np.sort(times))
    np.testing.assert_allclose(gaps, 1 / batch, atol=1e-12)
    another = stratified_time(3, Draw(0, 1, 0), batch)
    assert another != times[0], "every step has an offset of its own"


def test_parts_of_a_batch_have_early_and_late_times() -> None:
    """Each of four ranks, and each micro-step."""
    times = np.array([stratified_time(0, Draw(0, 0, position), 64) for position in range(64)])
    for part in times.reshape(8, 8):
        assert part.min() < 0.25 and part.max() > 0.75 and np.diff(np.sort(part)).max() < 0.3


def test_stratified_draws_differ_from_others_in_their_time_alone() -> None:
    plain, stratified = draw_training(0, Draw(0, 0, 5), SHAPE), draw_training(0, Draw(0, 0, 5), SHAPE, stratified=16)
    assert plain.time != stratified.time == stratified_time(0, Draw(0, 0, 5), 16)
    assert plain.drop == stratified.drop and np.array_equal(plain.noise, stratified.noise)


def test_labels_are_dropped_by_the_numbers_drawn_for_them() -> None:
    labels, drop = torch.tensor([3, 1, 4, 1]), torch.tensor([0.05, 0.1, 0.0, 0.9])
    assert with_dropped(labels, drop, 0.1, none=10).tolist() == [10, 1, 10, 1]
    assert with_dropped(labels, drop, 0.0, none=10).tolist() == labels.tolist()
