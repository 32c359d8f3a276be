"""What evaluations measure: the loss on held-out images, whose noise and times are the same every time, and samples
beside real images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffusion.config import DiffusionConfig
from diffusion.data.open import open_split
from diffusion.data.reader import NoisyReader, PixelTransform, preprocessing_of
from diffusion.generator import Generator, sample_share
from diffusion.metrics.distances import NEIGHBOURS
from diffusion.metrics.inception import Inception
from diffusion.metrics.judge import open_judge
from diffusion.metrics.measure import Found, Samples, Split, measure
from diffusion.metrics.names import BIN_NAMES, BINS, JUDGE
from diffusion.metrics.spaces import Judged, Pixels, Space
from diffusion.samplers.request import Request
from engine.data.loaders import EvalLoader
from engine.datasets.labelled import LabelledImages
from engine.distributed.ranks import Ranks
from engine.errors import UserError
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


def open_space(config: DiffusionConfig, classes: Sequence[str], ranks: Ranks) -> Space:
    """Opens what samples are compared in: what the judge sees in them, or plain pixels; every rank calls it.

    Args:
        config: The run's.
        classes: Those that the network is told; none: it is told no class.
        ranks: Where images are judged.

    Raises:
        UserError: the judge is no classifier, or one of other classes or channels.
    """
    shape, folder = (config.data.channels, *config.data.size), config.evaluation.judge
    if folder is None:
        return Pixels(shape, ranks.device)
    return Judged(open_judge(folder, ranks, JUDGE), shape, classes or None, ranks.device, folder.name, JUDGE)


def check_reference(config: DiffusionConfig, images: LabelledImages) -> None:
    """Raises a UserError if there are too few real images to compare samples with."""
    if config.evaluation.samples and len(images) <= NEIGHBOURS:
        raise UserError(
            f"evaluation.samples: {len(images)} held-out image(s) are too few to compare samples with; it takes at "
            f"least {NEIGHBOURS + 1}, or evaluation.samples=0"
        )


def share_of(
    generator: Generator, model: nn.Module, request: Request, config: DiffusionConfig, ranks: Ranks
) -> Samples:
    """Samples this rank's share of a request, to be measured."""
    numbers, images = sample_share(generator, model, request, config.diffusion.sampling, ranks)
    labels = torch.tensor([request.label(image) for image in numbers.tolist()], dtype=torch.int64)
    return Samples(request.count, numbers, images, labels if request.classes else None)


def compare(
    samples: Samples,
    split: str,
    images: LabelledImages,
    config: DiffusionConfig,
    space: Space,
    ranks: Ranks,
    train: LabelledImages | None = None,
    inception: Inception | None = None,
) -> Found:
    """Measures samples beside images of a data set; every rank calls it with its share of the samples.

    Args:
        samples: The samples.
        split: Which images they are compared with.
        images: Those.
        config: The run's.
        space: See :func:`open_space`.
        ranks: The ranks.
        train: Images that were trained on, where samples are to be looked for among them.
        inception: For FID and Inception Score.
    """
    size = config.evaluation.batch_size

    def read(name: str, images: LabelledImages) -> Split:
        loader = EvalLoader(
            validation_reader(images, config), len(images), size, worker_settings(config.data, ranks), ranks
        )
        resize = f"{config.data.resize}, {config.data.interpolation} interpolation"
        return Split(name, len(images), resize, loader)

    looked_through = None if train is None else read("train", train)
    return measure(samples, read(split, images), looked_through, space, ranks, inception, batch_size=size)


def reference_of(
    config: DiffusionConfig, split: str, images: LabelledImages, classes: Sequence[str], ranks: Ranks
) -> tuple[str, LabelledImages]:
    """Returns which images samples are compared with: those of the evaluated split, or those of train."""
    if config.evaluation.reference == "split":
        return split, images
    return "train", ranks.from_main(lambda: open_split(config.data, "train", list(classes) or None))
