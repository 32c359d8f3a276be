"""Grids of samples, and what becomes of them from evaluation to evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusion.report.grids import ENOUGH, GAP
from diffusion.report.progress import MOST_ROWS, write_progress


def solid(*values: int, channels: int = 3, size: int = 8) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, size, size)


def rows_of(file: Path) -> list[int]:
    """Value of the first image in each row."""
    pixels, high = np.asarray(Image.open(file)), ENOUGH + GAP
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
