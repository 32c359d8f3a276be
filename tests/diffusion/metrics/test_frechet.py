from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from diffusion.metrics.frechet import Gaussian, Moments, frechet_distance
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks

ALONE = Ranks(Layout(), torch.device("cpu"))


def drawn(count: int, width: int, seed: int) -> Tensor:
    """Features of unequal scales, that depend on each other and are far from 0."""
    random = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, width, generator=random) @ torch.randn(width, width, generator=random)
    return mixed * torch.linspace(0.1, 2, width) + 3


def gaussian(features: Tensor, batch: int = 1000) -> Gaussian:
    moments = Moments(features.shape[1], ALONE.device)
    for part in features.split(batch):
        moments.add(part)
    return moments.over_ranks(ALONE)


def test_normal_distributions_on_a_line_have_the_distance_of_the_formula() -> None:
    one, other = (Gaussian(9, torch.tensor([m]).double(), torch.tensor([[s**2]]).double()) for m, s in ((1, 2), (4, 7)))
    assert frechet_distance(one, other) == pytest.approx((1 - 4) ** 2 + (2 - 7) ** 2)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_moments_are_those_of_all_features_whatever_the_batches() -> None:
    features = drawn(101, 6, 0)
    found = gaussian(features, 7)
    assert found.count == 101
    torch.testing.assert_close(found.mean, features.double().mean(0))
    torch.testing.assert_close(found.covariance, features.double().T.cov())


@pytest.mark.parametrize(("count", "width"), [(300, 12), (20, 64)], ids=["full rank", "fewer images than features"])
def test_the_distance_does_not_depend_on_batches(count: int, width: int) -> None:
    """With rounding in the roots of variances that are 0, it does in the fourth digit."""
    one, other = drawn(count, width, 1), drawn(count, width, 2)
    found = [frechet_distance(gaussian(one, batch), gaussian(other, batch)) for batch in (1, 7, 64, 1000)]
    assert found == pytest.approx([found[0]] * 4, rel=1e-10)


def test_fewer_images_than_features_have_the_distance_of_the_directions_that_they_span() -> None:
    one, other = torch.zeros(3, 50), torch.zeros(3, 50)
    one[:, :2], other[:, 1:3] = drawn(3, 2, 3), drawn(3, 2, 4)
    small = frechet_distance(gaussian(one[:, :3]), gaussian(other[:, :3]))
    assert frechet_distance(gaussian(one), gaussian(other)) == pytest.approx(small, rel=1e-9)


def test_what_is_not_finite_has_no_distance() -> None:
    features = drawn(9, 2, 0)
    features[3, 1] = torch.inf
    assert math.isnan(frechet_distance(gaussian(features), gaussian(drawn(9, 2, 0))))


class Halves(nn.Module):
    """Features of ours for torchmetrics: means of parts of an image."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.double(), (2, 2)).flatten(1)


def test_the_distance_is_that_of_torchmetrics() -> None:
    module = pytest.importorskip("torchmetrics.image.fid", reason="ours is compared with it: pip install torchmetrics")
    random = torch.Generator().manual_seed(0)
    sets = [torch.randint(low, 256, (200, 3, 8, 8), dtype=torch.uint8, generator=random) for low in (0, 60)]
    theirs = module.FrechetInceptionDistance(feature=Halves(), input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    for images, real in zip(sets, (True, False), strict=True):
        theirs.update(images, real=real)
    one, other = (gaussian(Halves()(images), 64) for images in sets)
    assert frechet_distance(one, other) == pytest.approx(float(theirs.compute()), rel=1e-6)
