"""The loss on held-out images, whose noise and times are the same at every evaluation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion.config import DiffusionConfig
from diffusion.data.reader import NoisyReader, PixelTransform, preprocessing_of
from diffusion.generator import Generator
from diffusion.report.metric_names import BIN_NAMES, BINS
from engine.data.loaders import EvalLoader
from engine.datasets.labelled import LabelledImages
from engine.distributed.ranks import Ranks
from engine.images.reading import worker_settings


def validation_reader(images: LabelledImages, config: DiffusionConfig) -> NoisyReader:
    """Returns the reader of held-out images: nothing is random about them but their noise, which follows from them."""
    data = config.data
    transform = PixelTransform(preprocessing_of(data), data.channels, None)
    return NoisyReader(images, transform, config.experiment.seed, (data.channels, *data.size), training=False)


def validate(
    generator: Generator, model: nn.Module, images: LabelledImages, config: DiffusionConfig, ranks: Ranks
) -> dict[str, float]:
    """Measures the loss of ``model`` on ``images`` together with all ranks; the same for any number of them."""
    rows = [torch.empty(0, 3, dtype=torch.float64, device=ranks.device)]
    reader, settings = validation_reader(images, config), worker_settings(config.data, ranks)
    for batch in EvalLoader(reader, len(images), config.evaluation.batch_size, settings, ranks):
        data = {name: tensor.to(ranks.device, non_blocking=True) for name, tensor in batch.data.items()}
        loss = generator.losses(model, data, training=False).loss
        rows.append(torch.stack([data["index"].double(), data["time"].double(), loss.double()], dim=1))
    table = ranks.gather_rows(torch.cat(rows)).cpu()
    table = table[table[:, 0].argsort()]
    return binned(table[:, 1], table[:, 2])


def binned(times: Tensor, losses: Tensor) -> dict[str, float]:
    """Returns the mean loss, and that of each bin of times; NaN where a bin is empty.

    Args:
        times: (N,) in [0, 1).
        losses: (N,).
    """
    number = (times * BINS).long()
    bins = {name: losses[number == place].mean().item() for place, name in enumerate(BIN_NAMES)}
    return {"loss": losses.mean().item(), **bins}
