"""Windows: cutting and merging are inverse, masks separate what the shift brought together, nothing is made twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from swin import windows
from swin.windows import MASKED, make_grid, merge, partition, relative_position_index, shift_mask

CPU = torch.device("cpu")


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "window"), [(14, 21, (7, 7)), (10, 9, (4, 4)), (5, 13, (3, 5)), (2, 9, (7, 7))]
)
def test_merge_undoes_partition(height: int, width: int, window: tuple[int, int], shifted: bool) -> None:
    x = torch.randn(2, height, width, 3)
    grid = make_grid(height, width, window, shifted)
    cut = partition(x, grid)
    rows, columns = -(-height // window[0]), -(-width // window[1])
    assert cut.shape == (2 * rows * columns, window[0] * window[1], 3)
    assert torch.equal(merge(cut, grid), x)


def test_partition_keeps_rows_of_windows_and_of_tokens_in_order() -> None:
    x = torch.arange(16.0).reshape(1, 4, 4, 1)
    cut = partition(x, make_grid(4, 4, (2, 2), shifted=False))
    assert cut[..., 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_shift_moves_the_map_up_and_left_by_half_a_window() -> None:
    x = torch.arange(16.0).reshape(1, 4, 4, 1)
    cut = partition(x, make_grid(4, 4, (2, 2), shifted=True))
    assert cut[0, :, 0].tolist() == [5, 6, 9, 10]
    assert cut[3, :, 0].tolist() == [15, 12, 3, 0]


def test_an_axis_of_one_window_does_not_shift() -> None:
    assert make_grid(7, 7, (7, 7), shifted=True).shift == (0, 0)
    assert make_grid(3, 5, (7, 7), shifted=True).shift == (0, 0)
    assert make_grid(7, 8, (7, 7), shifted=True).shift == (0, 3)
    assert make_grid(15, 4, (4, 4), shifted=True).shift == (2, 0)
    assert shift_mask(make_grid(7, 7, (7, 7), shifted=True), CPU) is None


@pytest.mark.parametrize(("height", "width", "window"), [(12, 16, (4, 4)), (9, 22, (4, 7)), (3, 12, (4, 4))])
def test_mask_separates_exactly_the_tokens_that_were_no_neighbours(
    height: int, width: int, window: tuple[int, int]
) -> None:
    """On maps of three windows and more: tokens that lay less than a window apart on the map may see each other."""
    grid = make_grid(height, width, window, shifted=True)
    places = torch.stack(torch.meshgrid(torch.arange(grid.padded[0]), torch.arange(grid.padded[1]), indexing="ij"), -1)
    cut = partition(places[None], make_grid(*grid.padded, window, shifted=True))
    distance = (cut[:, :, None] - cut[:, None, :]).abs()
    neighbours = (distance[..., 0] < window[0]) & (distance[..., 1] < window[1])
    mask = shift_mask(grid, CPU)
    assert mask is not None
    assert torch.equal(mask, torch.where(neighbours, 0.0, MASKED))


def test_mask_of_a_small_map_by_hand() -> None:
    mask = shift_mask(make_grid(4, 4, (2, 2), shifted=True), CPU)
    assert mask is not None
    o, x = 0.0, MASKED
    assert mask[0].tolist() == [[o, o, o, o]] * 4
    assert mask[1].tolist() == [[o, x, o, x], [x, o, x, o], [o, x, o, x], [x, o, x, o]]
    assert mask[2].tolist() == [[o, o, x, x], [o, o, x, x], [x, x, o, o], [x, x, o, o]]
    assert mask[3].tolist() == [[o, x, x, x], [x, o, x, x], [x, x, o, x], [x, x, x, o]]


def test_masks_are_made_once_per_size_and_are_no_inference_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = windows._make_shift_mask

    def count(*args: Any) -> torch.Tensor:
        made.append(args)
        return make(*args)

    monkeypatch.setattr(windows, "_make_shift_mask", count)
    windows._cached_shift_mask.cache_clear()
    with torch.inference_mode():
        first = shift_mask(make_grid(30, 41, (7, 7), shifted=True), CPU)
    again = shift_mask(make_grid(35, 42, (7, 7), shifted=True), CPU)  # pads to the same size
    other = shift_mask(make_grid(36, 42, (7, 7), shifted=True), CPU)
    assert len(made) == 2
    assert first is again
    assert first is not None and other is not None
    assert not first.is_inference()
    limit = windows._cached_shift_mask.cache_info().maxsize
    assert limit is not None and limit <= 64


def test_relative_position_index_by_hand() -> None:
    index = relative_position_index((2, 3))
    assert index.shape == (6, 6)
    assert index[0, 0] == 1 * 5 + 2  # no offset: the middle of the 3 x 5 table
    assert index[0, 5] == 0  # from the last token to the first: one up, two left
    assert index[5, 0] == 14
    assert index[0, 1] == index[3, 4] == 1 * 5 + 1
