"""The figure of losses by time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.plots.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_by_time_figure(losses: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Draws losses in bins of time, a line each.

    Args:
        losses: By what they are, the mean of each of some bins of equal width over [0, 1]; NaN of an empty one.
    """
    figure = new_figure(6, 4)
    axes = figure.add_subplot(title="Loss of held-out images by time", xlabel="time: 0 image, 1 noise", ylabel="loss")
    for name, values in losses.items():
        axes.stairs(values, np.linspace(0, 1, len(values) + 1), label=name, baseline=None, linewidth=1.6)
    shown = np.concatenate([values[np.isfinite(values)] for values in losses.values()] or [np.empty(0)])
    if len(shown) and (shown > 0).all():
        axes.set_yscale("log")  # where images are hardly noised, errors are smaller by orders of magnitude
    axes.set_xlim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
