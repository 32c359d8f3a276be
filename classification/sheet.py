"""A sheet of pictures with their classes under them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from engine.task import Picture

SHOWN = 32
"""Pictures on a sheet of training samples."""
COLUMNS = 8
SIDE = 144
"""Pixels of a picture's longer side on the sheet."""
LINES = 3
"""Classes that are named under a picture; of more, how many follows."""
_GAP, _LINE_HEIGHT, _FONT_SIZE = 8, 15, 12


def contact_sheet(pictures: Tensor, targets: Tensor, classes: list[str]) -> Picture:
    """Pictures in rows, each over the names of its classes, with their shares where they are not whole.

    Args:
        pictures: (B, 3, H, W), values 0 to 255.
        targets: (B, C) in [0, 1].
    """
    count, _, height, width = pictures.shape
    scale = SIDE / max(height, width)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    resampling = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    captions = [_caption(row, classes) for row in targets]
    cell = SIDE + _GAP, shown[1] + _GAP + _LINE_HEIGHT * max(len(lines) for lines in captions)
    columns = min(COLUMNS, count)
    sheet = Image.new("RGB", (columns * cell[0] + _GAP, -(-count // columns) * cell[1] + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), _font()
    values = pictures.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    for number, lines in enumerate(captions):
        left, top = (number % columns) * cell[0] + _GAP, (number // columns) * cell[1] + _GAP
        sheet.paste(Image.fromarray(values[number]).resize(shown, resampling), (left, top))
        for place, line in enumerate(lines):
            text = _fitting(line, font, SIDE)
            draw.text((left, top + shown[1] + place * _LINE_HEIGHT), text, fill="black", font=font)
    return np.array(sheet)


def _caption(target: Tensor, classes: list[str]) -> list[str]:
    """A picture's classes, those with the largest shares first."""
    order = torch.argsort(-target, stable=True)[: int((target >= 0.005).sum())].tolist()
    if not order:
        return ["(none)"]
    named = [classes[k] if target[k] >= 0.995 else f"{float(target[k]):.2f} {classes[k]}" for k in order]
    return named if len(named) <= LINES else [*named[: LINES - 1], f"and {len(named) - LINES + 1} more"]


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """``text`` on one line, or as much of it as is at most ``width`` pixels wide."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _font() -> ImageFont.FreeTypeFont:
    """Matplotlib's, since Pillow's own has no letters but the Latin ones."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), _FONT_SIZE)
