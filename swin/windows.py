"""Windows over a map of tokens: the pure functions behind (shifted) window attention.

Letters in shapes: B pictures, H and W the map, C channels, M windows of one picture, N tokens of one window.

Where implementations differ we follow the paper's detection code and torchvision: the map is padded with zeros at the
bottom and the right to whole windows first, then rolled, and padding takes part in attention. (timm rolls first; the
two agree wherever nothing is padded.) An axis that holds a single window is not shifted.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED = -100.0
"""Added to the attention between tokens that a shift brought together: the release's constant. Finite, so that no
row of scores is without a number in half precision."""


class Grid(NamedTuple):
    """How a map of `height` x `width` tokens is cut into windows. All four pairs are (vertical, horizontal)."""

    size: tuple[int, int]
    padded: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]

    @property
    def rows_and_columns(self) -> tuple[int, int]:
        """Windows vertically and horizontally."""
        return self.padded[0] // self.window[0], self.padded[1] // self.window[1]


def make_grid(height: int, width: int, window: tuple[int, int], shifted: bool) -> Grid:
    """Pads a map to whole windows; shifts by half a window each axis that holds more than one."""
    padded = (-(-height // window[0]) * window[0], -(-width // window[1]) * window[1])
    shift = (
        window[0] // 2 if shifted and padded[0] > window[0] else 0,
        window[1] // 2 if shifted and padded[1] > window[1] else 0,
    )
    return Grid((height, width), padded, window, shift)


def partition(x: Tensor, grid: Grid) -> Tensor:
    """Cuts a map into windows: (B, H, W, C) -> (B * M, N, C); windows and their tokens row by row."""
    (height, width), (rows, columns), (down, right) = grid.size, grid.rows_and_columns, grid.window
    if grid.padded != grid.size:
        x = F.pad(x, (0, 0, 0, grid.padded[1] - width, 0, grid.padded[0] - height))
    if grid.shift != (0, 0):
        x = x.roll((-grid.shift[0], -grid.shift[1]), dims=(1, 2))
    x = x.reshape(-1, rows, down, columns, right, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, down * right, x.shape[-1])


def merge(windows: Tensor, grid: Grid) -> Tensor:
    """Undoes :func:`partition`: (B * M, N, C) -> (B, H, W, C)."""
    (height, width), (rows, columns), (down, right) = grid.size, grid.rows_and_columns, grid.window
    x = windows.reshape(-1, rows, columns, down, right, windows.shape[-1])
    x = x.transpose(2, 3).reshape(-1, *grid.padded, windows.shape[-1])
    if grid.shift != (0, 0):
        x = x.roll(grid.shift, dims=(1, 2))
    return x if grid.padded == grid.size else x[:, :height, :width].contiguous()


def relative_position_index(window: tuple[int, int]) -> Tensor:
    """For each pair of a window's tokens the row of the bias table that holds their offset.

    Returns:
        (N, N) int64 in [0, (2h - 1)(2w - 1)); entry (i, j) encodes position i minus position j, rows first.
    """
    height, width = window
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    down = rows[:, None] - rows[None, :] + height - 1
    right = columns[:, None] - columns[None, :] + width - 1
    return down * (2 * width - 1) + right


def _regions(length: int, window: int, shift: int) -> Tensor:
    """Which part of a rolled axis each position belongs to: positions of different parts were not neighbours."""
    positions = torch.arange(length)
    if shift == 0:
        return torch.zeros_like(positions)
    return (positions >= length - window).long() + (positions >= length - shift).long()


def shift_mask(grid: Grid, device: torch.device) -> Tensor | None:
    """What keeps tokens apart that only the cyclic shift made neighbours.

    Returns:
        (M, N, N) float32, :data:`MASKED` between tokens of different regions, 0 elsewhere; None without a shift.
        Computed once per map and device, hence shared: not to be written to.
    """
    if grid.shift == (0, 0):
        return None
    if torch.compiler.is_compiling():  # the compiler folds it into its graph, which must not own a cached tensor
        return _shift_mask(grid.padded, grid.window, grid.shift, device)
    return _cached_shift_mask(grid.padded, grid.window, grid.shift, device)


def _shift_mask(
    padded: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], device: torch.device
) -> Tensor:
    down = _regions(padded[0], window[0], shift[0])
    right = _regions(padded[1], window[1], shift[1])
    labels = (down[:, None] * 3 + right[None, :])[None, :, :, None]
    labels = partition(labels, Grid(padded, padded, window, (0, 0)))[:, :, 0]
    apart = labels[:, :, None] != labels[:, None, :]
    return (apart * MASKED).to(device)


@lru_cache(maxsize=32)
def _cached_shift_mask(
    padded: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # a mask made while evaluating must serve training too
        return _shift_mask(padded, window, shift, device)
