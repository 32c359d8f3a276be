"""Samples side by side: as a grid, and as a sheet with a row for each evaluation of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from engine.images.image_io import ImageArray, write_image

GAP = 2
"""White pixels around an image."""
ENOUGH = 64
"""Pixels of a side from which on images are shown as they are; smaller ones are enlarged by a whole factor."""
MOST_ROWS = 24
"""Of the sheet of a run."""
COLUMNS = 10
"""Most images in a row of an evaluation's grid."""


def cell(size: tuple[int, int]) -> tuple[int, int, int]:
    """Returns the factor by which images of ``size`` are enlarged, and height and width of their place in a grid."""
    factor = max(1, ENOUGH // max(size))
    return factor, size[0] * factor + GAP, size[1] * factor + GAP


def grid(images: Tensor, columns: int) -> ImageArray:
    """Draws uint8 images (N, C, H, W) in rows, left to right."""
    count, _, height, width = images.shape
    factor, high, wide = cell((height, width))
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    canvas = np.full((rows * high + GAP, columns * wide + GAP, 3), 255, np.uint8)
    pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    for place, image in enumerate(pixels):
        top, left = place // columns * high + GAP, place % columns * wide + GAP
        canvas[top : top + high - GAP, left : left + wide - GAP] = image.repeat(factor, 0).repeat(factor, 1)
    return canvas


def array_of(image: Tensor) -> ImageArray:
    """Returns uint8 (C, H, W) as (H, W), grey, or (H, W, 3)."""
    return image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy()


def write_progress(images: Tensor, columns: int, results: Path, step: int) -> Mapping[str, ImageArray]:
    """Writes the grid of an evaluation as ``grid_STEP.png``, and ``progress.png``: the first row of each such grid.

    What is there of steps beyond this one, from before a restart, is left out: it is about to be written again.

    Args:
        images: uint8 (N, C, H, W), of the same noise and classes at each evaluation.
        columns: Of the grid.
        results: The run's folder of results.
        step: Of the evaluation.

    Returns:
        The grid, for TensorBoard.
    """
    drawn = grid(images, columns)
    write_image(results / f"grid_{step:08d}.png", drawn)
    files = [path for path in sorted(results.glob("grid_????????.png")) if path.stem <= f"grid_{step:08d}"]
    chosen = [files[round(place)] for place in np.linspace(0, len(files) - 1, min(len(files), MOST_ROWS))]
    high = cell((images.shape[2], images.shape[3]))[1]
    rows = [np.asarray(Image.open(path).convert("RGB"))[:high] for path in chosen]
    rows = [row for row in rows if row.shape == rows[-1].shape]
    write_image(results / "progress.png", np.concatenate([*rows, np.full_like(rows[-1][:GAP], 255)]))
    return {"grid": drawn}
