"""What is random about a sample of training: a function of who draws, whichever process does it.

Drawn by numpy, in the workers that read the images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.data.batch_plan import Draw
from engine.seed import generator

GOLDEN = (math.sqrt(5) - 1) / 2


class Draws(NamedTuple):
    """Random numbers of one sample."""

    time: float
    """In [0, 1), uniform; see :class:`diffusion.process.times.Times`."""
    drop: float
    """In [0, 1), uniform; see :func:`with_dropped`."""
    noise: NDArray[np.float32]
    """(C, H, W), standard normal."""


def draw_training(seed: int, draw: Draw, shape: tuple[int, int, int], stratified: int | None = None) -> Draws:
    """Draws for one use of a sample in training.

    Args:
        seed: The run's.
        draw: Which use; what is drawn follows from its epoch and position alone.
        shape: (C, H, W) of the image.
        stratified: Size of the global batch over which times are stratified, see :func:`stratified_time`; None: each
            sample's time is drawn by itself.
    """
    draws = _drawn(shape, seed, "diffusion", draw.epoch, draw.position)
    if stratified is None:
        return draws
    return draws._replace(time=stratified_time(seed, draw, stratified))


def draw_evaluation(seed: int, index: int, shape: tuple[int, int, int]) -> Draws:
    """Draws for sample `index` of a split, the same at every evaluation.

    Times go round by the golden section: those of any row of samples, be they few, lie at nearly equal distances.
    """
    return _drawn(shape, seed, "diffusion", "evaluation", index)._replace(time=(0.5 + index * GOLDEN) % 1.0)


def with_dropped(labels: Tensor, drop: Tensor, share: float, none: int) -> Tensor:
    """Returns labels (B,) of which about `share` are `none`: those whose number in `drop` (B,) is less."""
    return labels.masked_fill(drop < share, none)


def stratified_time(seed: int, draw: Draw, batch: int) -> float:
    """Draws a time such that those of a global batch lie at equal distances, uniform in [0, 1) each by itself.

    All move with one number of the step (Kingma et al., "Variational Diffusion Models", NeurIPS 2021, appendix I.1).
    Neighbours are far apart, so that every part of a batch that a rank gets has early and late times.
    """
    step, place = divmod(draw.position, batch)
    offset = generator(seed, "times", draw.epoch, step).random()
    return (offset + place * _stride(batch) % batch / batch) % 1.0


def _stride(count: int) -> int:
    """Returns a number without a common divisor with `count`, near to its golden section."""
    stride = max(1, round(count * GOLDEN))
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride


def _drawn(shape: tuple[int, int, int], *keys: int | str) -> Draws:
    random = generator(*keys)
    time, drop = random.random(2)
    return Draws(float(time), float(drop), random.standard_normal(shape, dtype=np.float32))
