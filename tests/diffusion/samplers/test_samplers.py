"""All samplers: what holds for each of them on every schedule."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from diffusion.process.objectives import Objective
from diffusion.process.process import Process
from diffusion.process.schedules import Schedule
from diffusion.samplers.guidance import clipped
from diffusion.samplers.names import SAMPLERS, Sampler, bound_sampler
from diffusion.samplers.noise import first_noise, step_noise
from diffusion.samplers.single_step import ddim, ddpm, euler, heun
from diffusion.samplers.spacing import spaced, start
from diffusion.samplers.steps import CLEAN, Level, Progress
from tests.diffusion.samplers.analytic import mixture, perfect_network, wave

SCHEDULES = {
    "linear": Schedule("linear", 1000),
    "cosine": Schedule("cosine"),
    "cosine_steps": Schedule("cosine", 1000),
    "sigmoid": Schedule("sigmoid", zero_terminal_snr=True),
    "flow": Schedule("flow", shift=2.0),
    "edm": Schedule("edm"),
}
COLOURS = torch.tensor([[-1.0, -1, -1], [1, -0.2, 0.1], [-0.5, 0.7, 1.0], [0.9, 1, -1]])[:, :, None, None]
SHAPE = (3, 4, 4)


def sampler(name: str, images: range) -> Sampler:
    return bound_sampler(name, 0.5, step_noise(0, images, SHAPE, torch.device("cpu")))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_1_to_25_steps_are_finite_from_the_first_level_to_none(name: str, schedule: str) -> None:
    process = Process(SCHEDULES[schedule], Objective("v"))
    for spacing in ("uniform", "trailing", "karras"):
        for steps in (*range(1, 8), 13, 25):
            levels = spaced(process.schedule, steps, spacing)
            seen: list[Progress] = []
            x = start(first_noise(0, range(2), SHAPE), levels)
            last = sampler(name, range(2))(process.denoiser(wave, None), x, levels, seen.append)
            assert last.isfinite().all()
            assert len(seen) == steps and seen[0].level == levels[0] and torch.equal(seen[0].noisy, x)
            assert torch.equal(last, seen[-1].image), "the last level has no noise: what comes is what was seen"


@pytest.mark.parametrize("objective", ["x0", "v", "flow", "edm"])
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_solid_colours_come_back(name: str, schedule: str, objective: str) -> None:
    """Within 2 of 255, and all of them: through networks of every objective, on every schedule."""
    points = COLOURS.expand(-1, *SHAPE)
    process = Process(SCHEDULES[schedule], Objective(objective))
    denoise = process.denoiser(perfect_network(mixture(points), process.objective), None)
    levels = spaced(process.schedule, 25)
    images = range(48)
    last = sampler(name, images)(denoise, start(first_noise(3, images, SHAPE), levels), levels)
    distances = (last[:, None] - points).abs().flatten(2).amax(-1)
    assert distances.min(1).values.max() < 2 * 2 / 255
    assert len(distances.argmin(1).unique()) == len(COLOURS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_network_that_errs_is_forgiven_where_hardly_any_image_is_left(name: str) -> None:
    """At the noisiest of a cosine table's steps an error of the noise counts 20,000 times as much in the image."""
    points, process = COLOURS.expand(-1, *SHAPE), Process(SCHEDULES["cosine_steps"], Objective("eps"))
    perfect = perfect_network(mixture(points), process.objective)
    network = lambda x, angle, labels: perfect(x, angle) + 0.02 * wave(x, angle)  # noqa: E731
    images, levels = range(16), spaced(process.schedule, 10)
    x = start(first_noise(0, images, SHAPE), levels)
    last = sampler(name, images)(clipped(process.denoiser(network, None)), x, levels)
    assert (last[:, None] - points).abs().flatten(2).mean(-1).min(1).values.max() < 0.05


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_is_the_same_in_any_batch(name: str) -> None:
    process = Process(Schedule("flow"), Objective("flow"))
    levels, denoise = spaced(process.schedule, 6), process.denoiser(wave, None)

    def sampled(images: range) -> Tensor:
        return sampler(name, images)(denoise, start(first_noise(0, images, SHAPE), levels), levels)

    together = sampled(range(5))
    for image in range(5):
        torch.testing.assert_close(sampled(range(image, image + 1))[0], together[image], atol=1e-6, rtol=1e-5)


def test_second_order_is_better() -> None:
    """Beside 1000 steps of Euler: an error of half at most, in as many steps."""
    schedule, exact = Schedule("cosine"), mixture(torch.randn(5, *SHAPE, dtype=torch.float64))
    x = torch.randn(8, *SHAPE, dtype=torch.float64)
    levels = spaced(schedule, 40)[:30]  # before the images are decided on
    fine = [*spaced(schedule, 4000)[: 29 * 100 + 1]]
    assert fine[-1] == pytest.approx(levels[-1])
    aim = euler(exact, x, fine)
    first = (euler(exact, x, levels) - aim).abs().mean()
    for name in ("heun", "dpmpp", "unipc"):
        assert (SAMPLERS[name](exact, x, levels) - aim).abs().mean() < first / 2


def test_how_often_each_evaluates() -> None:
    calls: list[Level] = []

    def counted(noisy: Tensor, alpha: float, sigma: float) -> Tensor:
        calls.append(Level(alpha, sigma))
        return noisy / 2

    for name in SAMPLERS:
        calls.clear()
        levels = spaced(Schedule("cosine"), 7)
        sampler(name, range(2))(counted, torch.randn(2, *SHAPE), levels)
        assert len(calls) == (13 if name == "heun" else 7)
        assert CLEAN not in calls


def test_ancestral_sampling_keeps_the_variance_of_every_level() -> None:
    """Of data that are standard normal, for which the denoiser is known, every noisy image is normal."""
    schedule = Schedule("flow")
    denoise = lambda noisy, alpha, sigma: alpha / (alpha**2 + sigma**2) * noisy  # noqa: E731
    levels, generator = spaced(schedule, 400), torch.Generator().manual_seed(0)
    seen: list[Progress] = []
    x = torch.randn(20_000, 1, 1, 1, generator=generator)
    noise = lambda step: torch.randn(x.shape, generator=generator)  # noqa: E731
    for draw in (partial(ddim, eta=0.7, noise=noise), partial(ddpm, noise=noise)):
        seen.clear()
        draw(denoise, x, levels, seen.append)
        for progress in seen[:-20]:
            alpha, sigma = progress.level
            assert float(progress.noisy.var()) == pytest.approx(alpha**2 + sigma**2, rel=0.05)


def test_a_step_of_heun_from_pure_noise() -> None:
    """In coordinates of rectified flow: the mean of the velocities at both ends."""
    process = Process(Schedule("flow"), Objective("flow"))
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    levels = [Level(0.0, 1.0), Level(0.4, 0.6)]
    ask = lambda at, sigma: wave(at, torch.atan2(torch.tensor([sigma] * 2), torch.tensor([1 - sigma] * 2)).double())  # noqa: E731
    first = ask(x, 1.0)
    second = ask(x - 0.4 * first, 0.6)
    found = heun(process.denoiser(wave, None), x, levels)
    torch.testing.assert_close(found, x - 0.4 * (first + second) / 2, atol=1e-6, rtol=1e-6)
