"""From noise to images of 8 bits: whatever the blocks, with any network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion import generator as module
from diffusion.data.reader import PixelTransform, preprocessing_of
from diffusion.generator import Generator, sample_all
from diffusion.samplers.names import SAMPLERS
from diffusion.samplers.request import Request
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.images.lazy_image import LazyImage
from tests.diffusion.small import config_of
from tests.distributed import run_ranks

ALONE = Ranks(Layout(), torch.device("cpu"))
CLASSES = [str(digit) for digit in range(10)]


def built(ranks: Ranks = ALONE, **changes: Any) -> Generator:
    """A network that does not answer 0."""
    torch.manual_seed(0)
    made = Generator(config_of(**changes), CLASSES, ranks)
    for name in ("head.weight", "modulation.linear.weight"):
        torch.nn.init.normal_(made.model.get_parameter(name), std=0.1)
    made.model.eval()
    return made


@torch.inference_mode()
def sampled(ranks: Ranks, count: int, sampler: str, block: int) -> Tensor:
    made = built(ranks)
    config = config_of(diffusion={"sampling": {"sampler": sampler, "steps": 3, "block": block}}).diffusion.sampling
    return sample_all(made, made.model, Request(count, 1, (3, 8)), config, ranks)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_blocks_of_other_sizes_change_last_bits_alone(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "as_bytes", lambda images: (images.float() * 1e6).round())
    expected = sampled(ALONE, 9, sampler, 64) / 1e6
    for block in (1, 7):
        torch.testing.assert_close(sampled(ALONE, 9, sampler, block) / 1e6, expected, atol=1e-4, rtol=0)


def test_ranks_without_an_image_take_part() -> None:
    alone = sampled(ALONE, 3, "ddpm", 2)
    for images in run_ranks(3, sampled, 3, "ddpm", 2):
        assert torch.equal(images, alone)


def test_a_long_request_says_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    seconds, ticks = iter([0.0, 10.0, 29.0, 40.0, 60.0, 71.0]), list[int]()
    tick = module.telling(lambda: ticks.append(1), 10, lambda: next(seconds))
    with caplog.at_level("INFO"):
        for _ in range(5):
            tick()
    assert caplog.messages == ["sampling: 3 of 10 steps, eta 01:33", "sampling: 5 of 10 steps, eta 01:11"]
    assert len(ticks) == 5


def knowing(colours: Tensor, made: Generator) -> Callable[..., Tensor]:
    """What a perfect network of solid `colours` (K, C) in [-1, 1] answers: the mean of those that an image may be."""
    objective = made.process.objective

    def network(x: Tensor, angle: Tensor, labels: Tensor | None) -> Tensor:
        alpha, sigma = angle.double().cos()[0], angle.double().sin()[0]
        noisy = x.double() * objective.scale(alpha, sigma)
        known = colours.double()[None, :, :, None, None].expand(len(x), -1, -1, *x.shape[2:])
        distance = (noisy[:, None] - alpha * known).square().sum((2, 3, 4)) / (2 * sigma**2)
        image = ((-distance).softmax(1)[:, :, None, None, None] * known).sum(1)
        return objective.target(image, (noisy - alpha * image) / sigma, alpha, sigma).float()

    return network


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("objective", ["v", "eps", "x0"])
def test_solid_colours_come_back(sampler: str, objective: str) -> None:
    """All the way: read as files are, learnt perfectly, sampled, and written."""
    schedule = {"name": "linear", "steps": 100} if objective == "eps" else {"name": "cosine"}
    made = built(data={"channels": 3}, diffusion={"objective": objective, "schedule": schedule})
    from PIL import Image

    wanted = [(250, 3, 90), (17, 128, 200), (255, 255, 255)]
    transform = PixelTransform(preprocessing_of(config_of().data), 3, None)
    pixels = torch.stack([transform(LazyImage.of(Image.new("RGB", (20, 30), colour)), 0) for colour in wanted])
    colours = pixels[:, :, 0, 0].float() / 127.5 - 1
    sampling = {"sampler": sampler, "steps": 20, "spacing": "uniform" if sampler == "ddpm" else "trailing"}
    config = config_of(diffusion={"sampling": sampling}).diffusion.sampling
    images = made.sample(knowing(colours, made), Request(12, 0), range(12), config)  # type: ignore[arg-type]
    nearest = (images[:, None].int() - pixels.int()).abs().amax((2, 3, 4)).min(1)
    assert nearest.values.max() <= 2 and len(nearest.indices.unique()) > 1
