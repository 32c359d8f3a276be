"""What is summed up of a set of images, each of them once, on whichever rank it is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.metrics.frechet import Gaussian, Moments
from diffusion.metrics.inception import Inception, InceptionScore
from diffusion.metrics.spaces import Space
from engine.distributed.ranks import Ranks

MOST_COMPARED = 10_000
"""Images of a set that are compared one by one with those of another; of more, so many at equal distances. Sums (the
Frechet distance, accuracy, channels) are over all of them."""

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Numbers (B,), images (B, C, H, W) uint8, and labels (B,) if there are any."""


@dataclass(frozen=True)
class ImageSet:
    """What is known of a set of images in the end, on every rank."""

    gaussian: Gaussian
    features: Tensor
    """(K, F) float64 of those that are compared one by one."""
    indices: Tensor
    """(K,) their numbers, which increase."""
    levels: Tensor
    """(C,) mean of each channel, 0 to 255."""
    accuracy: float | None
    """Share whose label is what the judge says; None without labels or judge."""
    inception: Gaussian | None
    score: float


def summed(
    count: int, batches: Iterable[Batch], channels: int, space: Space, ranks: Ranks, inception: Inception | None
) -> ImageSet:
    """Sums up a set of `count` images, of which this rank has `batches`."""
    device, stride = ranks.device, -(-count // MOST_COMPARED)
    moments = Moments(space.width, device)
    seen_by_inception = None if inception is None else (Moments(inception.width, device), InceptionScore(count, device))
    sums = torch.zeros(channels + 4, dtype=torch.float64, device=device)
    kept = [torch.zeros(0, 1 + space.width, dtype=torch.float64, device=device)]
    for indices, images, labels in batches:
        assert images.shape[1] == channels, "samples and data have other channels"
        features, said = space(images)
        moments.add(features)
        some = indices.to(device) % stride == 0
        kept.append(torch.cat([indices.to(device, torch.float64)[:, None], features.double()], 1)[some])
        sums[:channels] += images.to(device, torch.float64).sum((0, 2, 3))
        sums[channels] += len(images)
        sums[channels + 1] += images[:, 0].numel()
        if labels is not None and said is not None:
            sums[channels + 2] += len(labels)
            sums[channels + 3] += (said == labels.to(device)).sum()
        if inception is not None and seen_by_inception is not None:
            features, logits = inception(images)
            seen_by_inception[0].add(features)
            seen_by_inception[1].add(indices, logits)
        ranks.heartbeat.tick()
    ranks.heartbeat.at("gather")
    table = ranks.gather_rows(torch.cat(kept))
    table = table[table[:, 0].argsort()]
    images_seen, pixels, labelled, right = ranks.sum_(sums)[channels:].tolist()
    assert images_seen == count, "an image was left out, or measured twice"
    found = [part.over_ranks(ranks) for part in seen_by_inception or ()]
    return ImageSet(
        moments.over_ranks(ranks),
        table[:, 1:],
        table[:, 0].long(),
        sums[:channels] / pixels,
        right / labelled if labelled else None,
        *(found or (None, math.nan)),
    )
