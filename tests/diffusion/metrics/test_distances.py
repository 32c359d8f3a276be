from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.metrics import distances
from diffusion.metrics.distances import Nearest, kernel_distance, precision_recall, squared_distances
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from tests.distributed import run_ranks

ALONE = Ranks(Layout(), torch.device("cpu"))


def drawn(count: int, shift: float, seed: int) -> Tensor:
    return torch.randn(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_kernel_distance_is_its_formula() -> None:
    x, y = drawn(4, 0, 0), drawn(3, 1, 1)

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 5 + 1) ** 3)

    among_x = sum(kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (4 * 3)
    among_y = sum(kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (3 * 2)
    between = sum(kernel(a, b) for a in x for b in y) / (4 * 3)
    assert kernel_distance(x, y, ALONE) == pytest.approx(among_x + among_y - 2 * between)


def test_the_kernel_distance_is_that_of_torchmetrics() -> None:
    module = pytest.importorskip("torchmetrics.image.kid", reason="ours is compared with it: pip install torchmetrics")
    x, y = drawn(50, 0, 0), drawn(50, 0.5, 1)
    assert kernel_distance(x, y, ALONE) == pytest.approx(float(module.poly_mmd(x, y)), rel=1e-9)


def test_the_kernel_distance_of_many_images_is_a_mean_over_the_same_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "SUBSET_SIZE", 40)
    near, far = (kernel_distance(drawn(200, 0, 0), drawn(150, shift, 1), ALONE) for shift in (0, 1))
    assert abs(near) < 0.3 < far
    assert kernel_distance(drawn(200, 0, 0), drawn(150, 0, 1), ALONE) == near


def test_precision_and_recall_count_who_lies_in_whose_reach() -> None:
    """On a line. To the second neighbour the reference reaches 1 or 2 far, the samples 10 or more."""
    reference = torch.tensor([[0.0], [1], [2], [3]])
    samples = torch.tensor([[1.5], [1.6], [20], [30]])
    assert precision_recall(samples, reference, ALONE, neighbours=2) == [0.5, 1.0]
    assert precision_recall(samples, reference, ALONE, neighbours=1) == [0.5, 0.0]
    assert precision_recall(reference, samples, ALONE, neighbours=2) == [1.0, 0.5]


def test_nobody_is_a_neighbour_of_itself() -> None:
    points = torch.tensor([[0.0], [10]])
    assert precision_recall(points + 3, points, ALONE, neighbours=1) == [1.0, 1.0]


def test_squared_distances_are_never_negative_and_0_of_equals() -> None:
    points = drawn(20, 1000, 0)
    found = squared_distances(points, points)
    assert (found >= 0).all() and (found.diagonal() < 1e-6).all()
    torch.testing.assert_close(found, torch.cdist(points, points).square(), atol=1e-6, rtol=1e-6)


def test_the_nearest_are_found_in_whatever_batches() -> None:
    some, many = drawn(9, 0, 0), drawn(101, 0, 1)
    expected = torch.cdist(some, many).min(1)
    for size in (1, 7, 101):
        nearest = Nearest(some)
        for numbers in torch.arange(101).split(size):
            nearest.add(numbers, many[numbers])
        found, indices = nearest.over_ranks(ALONE)
        torch.testing.assert_close(found, expected.values)
        assert torch.equal(indices, expected.indices)


def measured(ranks: Ranks) -> list:
    distances.ROWS, distances.SUBSET_SIZE = 16, 30
    x, y = drawn(70, 0, 0), drawn(50, 0.3, 1)
    nearest = Nearest(x)
    own = torch.arange(50)[ranks.rank :: ranks.world_size]
    nearest.add(own, y[own])
    found, indices = nearest.over_ranks(ranks)
    return [[kernel_distance(x, y, ranks), *precision_recall(x, y, ranks)], indices.tolist(), found]


def test_ranks_find_together_what_one_finds() -> None:
    (alone,) = run_ranks(1, measured)
    for ranks in (2, 3):
        for together in run_ranks(ranks, measured):
            assert together[:2] == alone[:2]
            torch.testing.assert_close(together[2], alone[2])
