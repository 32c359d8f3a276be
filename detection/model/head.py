"""The SSD head: a class and a box convolution for each map.

B images, A priors of an image in the order of :func:`detection.model.priors.make_priors`, K outputs of a prior.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from detection.model.layers import init_convolutions


class SSDHead(nn.Module):
    """Maps (B, C, h, w) -> class logits (B, A, K) and box codes (B, A, 4), by 3x3 convolutions.

    Args:
        in_channels: Channels C of each map.
        per_cell: Priors in each cell of each map.
        num_outputs: K: the classes, and one for the background before them where the loss is a softmax.
        prior_probability: Where each output is a sigmoid of its own, the probability that all start at (Lin et al.,
            "Focal Loss for Dense Object Detection", ICCV 2017, section 4.1).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        per_cell: Sequence[int],
        num_outputs: int,
        prior_probability: float | None = None,
    ) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        cells = list(zip(in_channels, per_cell, strict=True))
        self.classes = nn.ModuleList(nn.Conv2d(c, boxes * num_outputs, 3, padding=1) for c, boxes in cells)
        self.boxes = nn.ModuleList(nn.Conv2d(c, boxes * 4, 3, padding=1) for c, boxes in cells)
        init_convolutions(self)
        if prior_probability is not None:
            for layer in self.classes:
                nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
                nn.init.constant_(layer.bias, -math.log(1 / prior_probability - 1))  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return _rows(self.classes, maps, self.num_outputs), _rows(self.boxes, maps, 4)


def _rows(layers: Iterable[nn.Module], maps: Sequence[Tensor], numbers: int) -> Tensor:
    """One row of ``numbers`` for each prior: (B, A, numbers)."""
    outputs = [layer(x).permute(0, 2, 3, 1) for layer, x in zip(layers, maps, strict=True)]
    return torch.cat([y.flatten(1).unflatten(1, (-1, numbers)) for y in outputs], dim=1)
