"""What generated images are worth: beside a reference split, by a judge, and beside the images that were trained on.

What :func:`measure` needs, every rank in the same order::

    space = Pixels(shape, ranks.device)                                   # or, with `judge: FOLDER`:
    space = Judged(open_judge(folder, ranks, KEY), shape, classes, ranks.device, folder.name, KEY)
    reference = Split("val", len(images), "crop, bicubic", EvalLoader(reader, len(images), batch_size, workers, ranks))
    found = measure(samples, reference, train, space, ranks, find_inception(ranks))

where `reader` reads the split's `images` as dicts with `image`, uint8 (C, H, W) at the size and with the channels of
the samples, not augmented, and perhaps `label`. `found.metrics` has the names of
:func:`diffusion.metrics.names.directions`; :func:`diffusion.report.report.write_report` writes all that was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffusion.metrics.distances import NEIGHBOURS, Nearest, kernel_distance, precision_recall
from diffusion.metrics.frechet import frechet_distance
from diffusion.metrics.image_set import Batch, ImageSet, summed
from diffusion.metrics.inception import Inception
from diffusion.metrics.spaces import Space
from engine.data.loaders import EvalBatch
from engine.distributed.ranks import Ranks
from engine.errors import UserError
from engine.images.image_io import ImageArray

COPY_SHARE = 0.01
"""Share of held-out images that lie as near to a training image as what counts as a copy."""
SHOWN = 16
"""Samples that are shown beside the training images that they are nearest to."""


@dataclass(frozen=True)
class Samples:
    """This rank's share of N generated images; those of all ranks are 0 to N - 1, each once, in any order."""

    count: int
    """N, of all ranks."""
    indices: Tensor
    """(n,) int64 numbers of this rank's."""
    images: Tensor
    """(n, C, H, W) uint8."""
    labels: Tensor | None = None
    """(n,) int64 classes that were asked for; None without classes."""


@dataclass(frozen=True)
class Split:
    """Images of a data set, of which this rank reads its share."""

    name: str
    """train, val or test."""
    count: int
    """Images, of all ranks."""
    resize: str
    """How its images were brought to the size of the samples, for reports, such as `crop, bicubic`."""
    batches: Iterable[EvalBatch]
    """This rank's, with `image`, uint8 (B, C, H, W), and perhaps `label`, (B,). Iterated once."""


@dataclass(frozen=True)
class Copy:
    """A sample and the training image that it is nearest to."""

    sample: int
    """Its number."""
    image: ImageArray
    """(H, W, 3) the sample."""
    train: int
    """Number of the training image."""
    distance: float
    """In the space in which they were compared."""


@dataclass(frozen=True)
class Found:
    """What was measured; the same on every rank."""

    metrics: dict[str, float]
    about: dict[str, Any]
    """What the figures are of, without which they mean nothing: numbers of images, reference, space, resize."""
    nearest: list[Copy] = field(default_factory=list)
    """Samples that are nearest to a training image, the nearest first."""

    def __or__(self, other: Found) -> Found:
        """Returns what either has found."""
        return Found(self.metrics | other.metrics, self.about | other.about, [*self.nearest, *other.nearest])


@torch.inference_mode()
def measure(
    samples: Samples,
    reference: Split,
    train: Split | None,
    space: Space,
    ranks: Ranks,
    inception: Inception | None = None,
    copy_distance: float | None = None,
    batch_size: int = 64,
) -> Found:
    """Measures generated images; every rank calls it with its share of each set.

    The figures depend neither on the number of ranks nor on batch sizes, but for the last digits that a judge's
    features have in batches of another size.

    Args:
        samples: The generated images.
        reference: Held-out images, or those that were trained on, as is usual for CIFAR-10's FID.
        train: Those that were trained on, where samples are to be looked for among them.
        space: In which images are compared.
        ranks: The ranks.
        inception: For FID and Inception Score.
        copy_distance: Distance below which a sample counts as a copy of a training image, in the space's units; None:
            below which 1 % of the reference's images are (Meehan et al., "A Non-Parametric Test to Detect Data-Copying
            in Generative Models", AISTATS 2020), where that is not the training images themselves.
        batch_size: Samples that are looked at at a time.

    Raises:
        UserError: there are too few images.
    """
    for name, count in ((f"{samples.count} samples", samples.count), (reference.name, reference.count)):
        if count <= NEIGHBOURS:
            least = NEIGHBOURS + 1
            raise UserError(f"{name}: {count} image(s) are too few to be measured; it takes at least {least}")
    channels = samples.images.shape[1]
    with torch.autocast(ranks.device.type, enabled=False):
        made = summed(samples.count, _batches(samples, batch_size), channels, space, ranks, inception)
        real = summed(reference.count, _read(reference), channels, space, ranks, inception)
        ranks.heartbeat.at("measure")
        precision, recall = precision_recall(made.features, real.features, ranks)
        metrics = {
            "frechet_distance": frechet_distance(made.gaussian, real.gaussian),
            "kernel_distance": kernel_distance(made.features, real.features, ranks),
            "precision": precision,
            "recall": recall,
            "channel_shift": float((made.levels - real.levels).abs().max()),
        }
        about = _about(samples, reference, space, made, real)
        if made.accuracy is not None:
            metrics["class_accuracy"] = made.accuracy
            about["class_accuracy_of_reference"] = real.accuracy
        if made.inception is not None and real.inception is not None and inception is not None:
            metrics |= {"fid": frechet_distance(made.inception, real.inception), "inception_score": made.score}
            about["inception"] = {"network": inception.name, "resize": inception.resize}
        if train is None:
            return Found(metrics, about)
        novelty = _novelty(samples, made, real, reference.name, train, space, ranks, copy_distance)
    return Found(metrics, about) | novelty


def _about(samples: Samples, reference: Split, space: Space, made: ImageSet, real: ImageSet) -> dict[str, Any]:
    """Says what the figures are of."""
    return {
        "images": samples.count,
        "reference": reference.name,
        "reference_images": reference.count,
        "reference_resize": reference.resize,
        "space": space.name,
        "resize": space.resize,
        "compared_one_by_one": [len(made.features), len(real.features)],
    }


def _novelty(
    samples: Samples,
    made: ImageSet,
    real: ImageSet,
    reference: str,
    train: Split,
    space: Space,
    ranks: Ranks,
    copy_distance: float | None,
) -> Found:
    """Looks for samples, and for the images of the split `reference`, among the training images."""
    nearest = Nearest(torch.cat([made.features, real.features]))
    for indices, images, _ in _read(train):
        nearest.add(indices, space(images).features)
    distances, places = nearest.over_ranks(ranks)
    own, held_out = distances.split([len(made.features), len(real.features)])
    metrics, about = {"nearest_train": float(own.median())}, dict[str, Any](train_images=train.count)
    if reference != train.name:
        about["nearest_train_of_reference"] = float(held_out.median())
        copy_distance = float(held_out.quantile(COPY_SHARE)) if copy_distance is None else copy_distance
    if copy_distance is not None:
        metrics["copies"] = float((own < copy_distance).double().mean())
        about["copy_distance"] = copy_distance
    order = own.argsort(stable=True)[:SHOWN]
    numbers = made.indices[order].tolist()
    shown = _images(samples, numbers, ranks)
    chosen = zip(numbers, places[order].tolist(), own[order].tolist(), strict=True)
    return Found(metrics, about, [Copy(number, shown[number], place, distance) for number, place, distance in chosen])


def _batches(samples: Samples, size: int) -> Iterator[Batch]:
    for first in range(0, len(samples.indices), size):
        rows = slice(first, first + size)
        yield samples.indices[rows], samples.images[rows], None if samples.labels is None else samples.labels[rows]


def _read(split: Split) -> Iterator[Batch]:
    for batch in split.batches:
        yield torch.from_numpy(batch.indices), batch.data["image"], batch.data.get("label")


def _images(samples: Samples, chosen: Sequence[int], ranks: Ranks) -> dict[int, ImageArray]:
    """Returns the chosen samples by their numbers, whichever ranks have them: (H, W, 3)."""
    places = {number: place for place, number in enumerate(samples.indices.tolist())}
    own = {number: as_rgb(samples.images[places[number]]) for number in chosen if number in places}
    return {number: image for part in ranks.gather(own) for number, image in part.items()}


def as_rgb(image: Tensor) -> ImageArray:
    """Returns a uint8 image (C, H, W) of one channel or three as (H, W, 3)."""
    return image.cpu().expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
