from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from diffusion.metrics.measure import Copy
from diffusion.report.grids import ENOUGH, GAP, array_of, enlargement, nearest_sheet, rows_by_class, sample_grid
from engine.images.lazy_image import LazyImage


def levels(count: int, channels: int = 1, side: int = 8) -> torch.Tensor:
    """Images of one level each: 10, 20 and so on."""
    return (10 * torch.arange(1, count + 1)).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, side, side)


def test_a_grid_has_rows_of_sharp_images_behind_their_names() -> None:
    grid = sample_grid({"zero": levels(3), "a longer name": levels(2)})
    assert grid.dtype == np.uint8 and grid.shape[0] == 2 * (ENOUGH + GAP) + GAP
    names, images = np.split(grid, [-3 * (ENOUGH + GAP) - GAP], axis=1)
    counts = [(images == level).all(2).sum() / ENOUGH**2 for level in (10, 20, 30)]
    assert counts == [2, 2, 1]
    assert (names[: ENOUGH + GAP] < 100).any() and (names[ENOUGH + GAP :] < 100).any()


def test_a_grid_without_names_has_no_margin() -> None:
    grid = sample_grid(rows_by_class(levels(5, channels=3, side=ENOUGH), None, [], columns=3))
    assert grid.shape == (2 * (ENOUGH + GAP) + GAP, 3 * (ENOUGH + GAP) + GAP, 3)


def test_rows_are_the_first_images_of_each_class_that_has_some() -> None:
    rows = rows_by_class(levels(6), torch.tensor([2, 0, 2, 0, 2, 2]), ["a", "b", "c"], columns=3)
    assert {name: images[:, 0, 0, 0].tolist() for name, images in rows.items()} == {"a": [20, 40], "c": [10, 30, 50]}


def test_samples_stand_on_the_left_of_training_images() -> None:
    sample = np.tile(np.array([0, 200, 0], np.uint8), (8, 8, 1))
    shown = nearest_sheet(
        [Copy(4, sample, 7, 1.5)], lambda index: LazyImage.of(Image.new("RGB", (16, 16), (10 * index, 0, 0)))
    )
    left, right = (np.argwhere((shown == colour).all(2)) for colour in ((0, 200, 0), (70, 0, 0)))
    assert len(left) == len(right) > 1000 and left[:, 1].max() < right[:, 1].min()


def test_small_images_are_enlarged_by_whole_factors() -> None:
    assert [enlargement(size) for size in ((8, 8), (28, 28), (40, 20), (100, 100))] == [8, 2, 1, 1]


def test_arrays_are_grey_or_coloured() -> None:
    assert array_of(levels(1)[0]).shape == (8, 8)
    assert array_of(levels(1, channels=3)[0]).shape == (8, 8, 3)
