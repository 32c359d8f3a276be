"""Samples of a network beside real images: in a run's evaluations, and of a trained one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from diffusion.config import DiffusionConfig
from diffusion.data.open import open_split
from diffusion.generator import Generator, sample_share
from diffusion.metrics.distances import NEIGHBOURS
from diffusion.metrics.inception import Inception
from diffusion.metrics.judge import open_judge
from diffusion.metrics.measure import Found, Samples, Split, measure
from diffusion.metrics.spaces import Judged, Pixels, Space
from diffusion.preflight import JUDGE
from diffusion.samplers.request import Request
from diffusion.validation import validation_reader
from engine.data.loaders import EvalLoader
from engine.datasets.labelled import LabelledImages
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.images.reading import worker_settings


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
