"""Grids of samples, and what becomes of them from evaluation to evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusion.report.progress import GAP, MOST_ROWS, array_of, cell, grid, write_progress


def solid(*values: int, channels: int = 3, size: int = 8) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, size, size)


def test_images_lie_in_rows_enlarged_by_whole_factors() -> None:
    drawn = grid(solid(1, 2, 3, channels=1), 2)
    factor, high, wide = cell((8, 8))
    assert factor == 8 and high == wide == 8 * 8 + GAP
    assert drawn.shape == (2 * high + GAP, 2 * wide + GAP, 3)
    centres = [drawn[high // 2, wide // 2], drawn[high // 2, wide * 3 // 2], drawn[high * 3 // 2, wide // 2]]
    assert [set(centre.tolist()) for centre in centres] == [{1}, {2}, {3}]
    assert drawn[high * 3 // 2, wide * 3 // 2].tolist() == [255] * 3 and drawn[0, 0].tolist() == [255] * 3
    assert grid(solid(1, size=100), 4).shape == (100 + 2 * GAP, 100 + 2 * GAP, 3)


def test_arrays_are_grey_or_coloured() -> None:
    assert array_of(solid(1, channels=1)[0]).shape == (8, 8)
    assert array_of(solid(1, channels=3)[0]).shape == (8, 8, 3)


def rows_of(file: Path) -> list[int]:
    """Value of the first image in each row."""
    pixels, high = np.asarray(Image.open(file)), cell((8, 8))[1]
    return [int(pixels[row * high + high // 2, 10, 0]) for row in range(len(pixels) // high)]


def test_each_evaluation_adds_a_row_and_a_restart_takes_back_what_was_beyond(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        shown = write_progress(solid(number, number, 100, 100), 2, tmp_path, 10 * number)
        assert set(shown) == {"grid"}
    assert rows_of(tmp_path / "progress.png") == [1, 2, 3]
    assert rows_of(tmp_path / "grid_00000030.png") == [3, 100]
    write_progress(solid(7, 7), 2, tmp_path, 20)
    assert rows_of(tmp_path / "progress.png") == [1, 7]
    for number in range(4, 100):
        write_progress(solid(number), 2, tmp_path, 10 * number) if number in (4, 99) else None
    assert rows_of(tmp_path / "progress.png")[-1] == 99


def test_of_many_evaluations_the_first_and_the_last_are_shown(tmp_path: Path) -> None:
    for number in range(MOST_ROWS + 20):
        write_progress(solid(number), 1, tmp_path, number)
    rows = rows_of(tmp_path / "progress.png")
    assert len(rows) == MOST_ROWS and (rows[0], rows[-1]) == (0, MOST_ROWS + 19)
