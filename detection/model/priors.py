"""SSD's default boxes: from the sizes of the maps to one list of boxes.

A is the number of priors of an image. Boxes are (centre x, centre y, width, height) as parts of the image's width
and height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detection.model.layers import Size
from detection.model.sections import PriorsConfig


def make_priors(
    config: PriorsConfig, map_sizes: Sequence[Size], image_size: Size, device: torch.device | None = None
) -> Tensor:
    """Makes the default boxes of all maps, the finest first, cells row by row, those of a cell by :func:`cell_boxes`.

    Box i, j of a map of h rows and w columns has its centre at ((j + 0.5) / w, (i + 0.5) / h), as in section 2.2 of the
    SSD paper.

    Args:
        map_sizes: Height and width of each map, in cells.
        image_size: Height and width, in pixels: what the boxes' proportions refer to.

    Returns:
        (A, 4) float32.
    """
    maps = []
    for index, (rows, columns) in enumerate(map_sizes):
        y = (torch.arange(rows, device=device) + 0.5) / rows
        x = (torch.arange(columns, device=device) + 0.5) / columns
        sides = torch.tensor(cell_boxes(config, index, image_size), device=device).expand(rows, columns, -1, -1)
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[:, :, None].expand_as(sides)
        maps.append(torch.cat([centres, sides], dim=-1).view(-1, 4))
    return torch.cat(maps)


def cell_boxes(config: PriorsConfig, index: int, image_size: Size) -> list[tuple[float, float]]:
    """Returns widths and heights of the boxes in each cell of map ``index``, as parts of the image's.

    First the square of the map's scale, then the square of the geometric mean of this scale and the next, then lying
    and upright boxes of each ratio with the first square's area. Squares and ratios are those seen in the image: in
    one that is not square, a scale is a part of the root of its area.
    """
    height, width = image_size
    scales = (*config.scales, config.scale_beyond)
    scale, between = scales[index], math.sqrt(scales[index] * scales[index + 1])
    shapes = [(scale, scale), (between, between)]
    for ratio in config.ratios[index]:
        longer, shorter = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        shapes += [(longer, shorter), (shorter, longer)]
    stretch = math.sqrt(height / width)
    boxes = [(w * stretch, h / stretch) for w, h in shapes]
    return [(min(w, 1.0), min(h, 1.0)) for w, h in boxes] if config.clip else boxes
