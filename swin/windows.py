"""Windows over a map of tokens: the pure functions behind (shifted) window attention.

Letters in shapes: B images, H and W the map, C channels, M windows of one image, N tokens of one window.

Where implementations differ we follow the paper's detection code and torchvision: the map is padded with zeros at the
bottom and the right to whole windows first, then rolled, and padding takes part in attention. (timm rolls first; the
two agree wherever nothing is padded.) An axis that holds a single window is not shifted.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

MASKED = -1000.0
"""Added to the scores of tokens that only a shift brought together. Finite, so that half precision and every kernel can
take it, and low enough for their weights to become zero: with the -100 of other implementations they become denormal
numbers, with which a CPU computes ten times slower."""


class Grid(NamedTuple):
    """A cut of a map of `height` x `width` tokens into windows. All four pairs are (vertical, horizontal)."""

    size: tuple[int, int]
    padded: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]

    @property
    def rows_and_columns(self) -> tuple[int, int]:
        """Windows vertically and horizontally."""
        return self.padded[0] // self.window[0], self.padded[1] // self.window[1]

    @property
    def windows(self) -> int:
        """Returns M, windows of one image."""
        return self.rows_and_columns[0] * self.rows_and_columns[1]

    @property
    def tokens(self) -> int:
        """Returns N, tokens of one window."""
        return self.window[0] * self.window[1]


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
    x = pad(x, grid)
    if grid.shift == (0, 0) or being_recorded():  # a compiler fuses the steps by itself
        return cut(x, grid)
    order, inverse = _orders(len(x), grid._replace(size=grid.padded), x.device)
    return _Reorder.apply(x.reshape(-1, x.shape[-1]), order, inverse).view(-1, grid.tokens, x.shape[-1])


def merge(windows: Tensor, grid: Grid) -> Tensor:
    """Undoes :func:`partition`: (B * M, N, C) -> (B, H, W, C)."""
    if grid.shift == (0, 0) or being_recorded():
        x = join(windows, grid)
    else:
        channels, batch = windows.shape[-1], len(windows) // grid.windows
        order, inverse = _orders(batch, grid._replace(size=grid.padded), windows.device)
        x = _Reorder.apply(windows.reshape(-1, channels), inverse, order).view(batch, *grid.padded, channels)
    return crop(x, grid)


def pad(x: Tensor, grid: Grid) -> Tensor:
    """Adds zeros at the bottom and the right, up to whole windows."""
    if grid.padded == grid.size:
        return x
    return F.pad(x, (0, 0, 0, grid.padded[1] - grid.size[1], 0, grid.padded[0] - grid.size[0]))


def crop(x: Tensor, grid: Grid) -> Tensor:
    """Undoes :func:`pad`."""
    return x if grid.padded == grid.size else x[:, : grid.size[0], : grid.size[1]].contiguous()


def cut(x: Tensor, grid: Grid) -> Tensor:
    """Cuts the padded map (B, H, W, C), rolled, into windows (B * M, N, C)."""
    if grid.shift != (0, 0):
        x = x.roll((-grid.shift[0], -grid.shift[1]), dims=(1, 2))
    (rows, columns), (down, right) = grid.rows_and_columns, grid.window
    x = x.reshape(-1, rows, down, columns, right, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, grid.tokens, x.shape[-1])


def join(windows: Tensor, grid: Grid) -> Tensor:
    """Undoes :func:`cut`: (B * M, N, C) -> (B, H, W, C), still padded."""
    x = windows.reshape(-1, *grid.rows_and_columns, *grid.window, windows.shape[-1])
    x = x.transpose(2, 3).reshape(-1, *grid.padded, windows.shape[-1])
    return x if grid.shift == (0, 0) else x.roll(grid.shift, dims=(1, 2))


class _Reorder(Function):
    """Puts rows (R, C) into another order: roll and cut in one pass, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse, order)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Reorder.apply(grad, *ctx.saved_tensors), None, None


@lru_cache(maxsize=16)
def _orders(batch: int, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns where in the padded maps each token of the windows comes from, and the inverse: two times (B * H * W)."""
    with torch.inference_mode(False):  # what is made while evaluating must serve training too
        count = batch * grid.padded[0] * grid.padded[1]
        positions = torch.arange(count, device=device).view(batch, *grid.padded, 1)
        order = cut(positions, grid).flatten()
        inverse = join(positions.view(-1, grid.tokens, 1), grid).flatten()
        return order, inverse


def being_recorded() -> bool:
    """Returns whether a compiler, exporter or tracer is at work: it wants plain operations without anything cached."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def relative_position_index(window: tuple[int, int]) -> Tensor:
    """Returns for each pair of a window's tokens the row of the bias table that holds their offset.

    Returns:
        (N, N) int64 in [0, (2h - 1)(2w - 1)); entry (i, j) encodes position i minus position j, rows first.
    """
    height, width = window
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    down = rows[:, None] - rows[None, :] + height - 1
    right = columns[:, None] - columns[None, :] + width - 1
    return down * (2 * width - 1) + right


def _regions(length: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Returns the part of a rolled axis of each position: those of different parts were not neighbours."""
    positions = torch.arange(length, device=device)
    if shift == 0:
        return torch.zeros_like(positions)
    return (positions >= length - window).long() + (positions >= length - shift).long()


def shift_mask(grid: Grid, device: torch.device) -> Tensor | None:
    """Returns what keeps tokens apart that only the cyclic shift made neighbours.

    Returns:
        (M, N, N) float32, :data:`MASKED` between tokens of different regions, 0 elsewhere; None without a shift.
        Computed once per map and device, hence shared: not to be written to.
    """
    if grid.shift == (0, 0):
        return None
    make = _make_shift_mask if being_recorded() else _cached_shift_mask  # a graph must not own a cached tensor
    return make(grid._replace(size=grid.padded), device)


def _make_shift_mask(grid: Grid, device: torch.device) -> Tensor:
    down = _regions(grid.padded[0], grid.window[0], grid.shift[0], device)
    right = _regions(grid.padded[1], grid.window[1], grid.shift[1], device)
    regions = (down[:, None] * 3 + right[None, :])[None, :, :, None]  # of the map as it is after rolling
    regions = cut(regions, grid._replace(shift=(0, 0)))[:, :, 0]
    return (regions[:, :, None] != regions[:, None, :]) * MASKED


@lru_cache(maxsize=16)
def _cached_shift_mask(grid: Grid, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return _make_shift_mask(grid, device)
