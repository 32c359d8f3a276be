"""What a network is told beside the image: how much noise there is, and of which class it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FREQUENCIES = 64
"""Sines and cosines, each, of the angle."""
FASTEST = 1000.0
"""Highest frequency of an angle in radians: it tells angles apart that differ by a thousandth."""


def sinusoids(angle: Tensor) -> Tensor:
    """Returns sines and cosines of angles (B,) at frequencies from 1 to :data:`FASTEST`: (B, 2 * FREQUENCIES)."""
    exponents = torch.linspace(0, 1, FREQUENCIES, device=angle.device, dtype=angle.dtype)
    phases = angle[:, None] * FASTEST**exponents
    return torch.cat([phases.sin(), phases.cos()], dim=1)


class Condition(nn.Module):
    """Level of noise and class: (B,) and (B,) -> (B, channels).

    Args:
        channels: Of the condition.
        num_classes: Classes of images; 0: the network is told none. One more stands for images without a class.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * FREQUENCIES, channels)
        self.fc2 = nn.Linear(channels, channels)
        self.act = nn.SiLU()
        self.classes = nn.Embedding(num_classes + 1, channels) if num_classes else None

    def forward(self, angle: Tensor, labels: Tensor | None) -> Tensor:
        """Maps angles (B,) in [0, pi / 2] and labels (B,), `num_classes` for none, to (B, channels)."""
        condition = self.fc2(self.act(self.fc1(sinusoids(angle))))
        if self.classes is not None:
            assert labels is not None, "a network of classes is to be told one of each image, or that there is none"
            condition = condition + self.classes(labels)
        return self.act(condition)
