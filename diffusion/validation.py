"""The loss on held-out images, whose noise and times are the same at every evaluation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffusion.config import DiffusionConfig
from diffusion.data.reader import NoisyReader, PixelTransform, preprocessing_of
from diffusion.generator import Generator
from diffusion.metrics.names import BIN_NAMES, BINS
from engine.data.loaders import EvalLoader
from engine.datasets.labelled import LabelledImages
from engine.distributed.ranks import Ranks
from engine.images.reading import worker_settings

DRAWN = 16
"""Bins of times in the figure of losses."""


class HeldOutLosses(NamedTuple):
    """Losses of held-out images, in their order; the same on every rank."""

    times: Tensor
    """(N,) float64 in [0, 1)."""
    losses: Tensor
    """(N,) float64."""

    def metrics(self) -> dict[str, float]:
        """Returns the mean loss, and that of each bin of times; NaN where a bin is empty."""
        bins = dict(zip(BIN_NAMES, self.by_time(BINS).tolist(), strict=True))
        return {"loss": self.losses.mean().item(), **bins}

    def by_time(self, bins: int = DRAWN) -> NDArray[np.float64]:
        """Returns the mean loss (bins,) of times of equal share; NaN where there are none."""
        number = (self.times * bins).long()
        return np.array([self.losses[number == place].mean().item() for place in range(bins)])


def validation_reader(images: LabelledImages, config: DiffusionConfig) -> NoisyReader:
    """Returns the reader of held-out images: nothing is random about them but their noise, which follows from them."""
    data = config.data
    transform = PixelTransform(preprocessing_of(data), data.channels, None)
    return NoisyReader(images, transform, config.experiment.seed, (data.channels, *data.size), training=False)


def validate(
    generator: Generator, model: nn.Module, images: LabelledImages, config: DiffusionConfig, ranks: Ranks
) -> HeldOutLosses:
    """Computes the losses of ``model`` on ``images`` together with all ranks; the same for any number of them."""
    rows = [torch.empty(0, 3, dtype=torch.float64, device=ranks.device)]
    reader, settings = validation_reader(images, config), worker_settings(config.data, ranks)
    for batch in EvalLoader(reader, len(images), config.evaluation.batch_size, settings, ranks):
        data = {name: tensor.to(ranks.device, non_blocking=True) for name, tensor in batch.data.items()}
        loss = generator.losses(model, data, training=False).loss
        rows.append(torch.stack([data["index"].double(), data["time"].double(), loss.double()], dim=1))
    table = ranks.gather_rows(torch.cat(rows)).cpu()
    table = table[table[:, 0].argsort()]
    return HeldOutLosses(table[:, 1], table[:, 2])
