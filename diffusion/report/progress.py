"""The samples of a run's evaluations: a grid of each, and a sheet with a row of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from diffusion.report.grids import GAP, enlargement, grid
from engine.images.image_io import ImageArray, write_image

MOST_ROWS = 24
"""Of the sheet of a run."""


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
    size = images.shape[2], images.shape[3]
    high = size[0] * enlargement(size) + GAP
    rows = [np.asarray(Image.open(path).convert("RGB"))[:high] for path in chosen]
    rows = [row for row in rows if row.shape == rows[-1].shape]
    write_image(results / "progress.png", np.concatenate([*rows, np.full_like(rows[-1][:GAP], 255)]))
    return {"grid": drawn}
