"""A sheet of training images with their classes under them."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from engine.images.image_io import ImageArray
from engine.plots.figures import Tile, sheet

SHOWN = 32
"""Images on a sheet of training samples."""
COLUMNS = 8
LINES = 3
"""Classes that are named under an image; of more, how many follows."""


def contact_sheet(images: Tensor, targets: Tensor, classes: list[str]) -> ImageArray:
    """Arranges images in rows, each over the names of its classes, with their shares where they are not whole.

    Args:
        images: (B, 3, H, W), values 0 to 255.
        targets: (B, C) in [0, 1].
    """
    values = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    captions = [[(line, "black") for line in _caption(row, classes)] for row in targets]
    return sheet(list(map(Tile, map(Image.fromarray, values), captions)), COLUMNS)


def _caption(target: Tensor, classes: list[str]) -> list[str]:
    """Returns an image's classes, those with the largest shares first."""
    order = torch.argsort(-target, stable=True)[: int((target >= 0.005).sum())].tolist()
    if not order:
        return ["(none)"]
    named = [classes[k] if target[k] >= 0.995 else f"{float(target[k]):.2f} {classes[k]}" for k in order]
    return named if len(named) <= LINES else [*named[: LINES - 1], f"and {len(named) - LINES + 1} more"]
