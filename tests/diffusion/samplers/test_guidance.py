from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.process.objectives import Objective
from diffusion.process.process import Process
from diffusion.process.schedules import Schedule
from diffusion.samplers.guidance import clipped, guided, thresholded

X = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


class Scaled:
    """A denoiser that multiplies, and counts."""

    def __init__(self, factor: float) -> None:
        self.factor, self.calls = factor, 0

    def __call__(self, noisy: Tensor, alpha: float, sigma: float) -> Tensor:
        self.calls += 1
        return self.factor * noisy


def test_guidance_of_1_is_the_conditional_denoiser() -> None:
    """One call a step, and the same bits."""
    conditional, unconditional = Scaled(0.3), Scaled(0.7)
    denoise = guided(conditional, unconditional, 1.0)
    assert torch.equal(denoise(X, 0.6, 0.8), 0.3 * X)
    assert (conditional.calls, unconditional.calls) == (1, 0)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 2.0, 7.5])
def test_guidance_goes_away_from_the_unconditional_image(guidance: float) -> None:
    denoise = guided(Scaled(0.3), Scaled(0.7), guidance)
    torch.testing.assert_close(denoise(X, 0.6, 0.8), (0.7 + guidance * (0.3 - 0.7)) * X)


@pytest.mark.parametrize("objective", ["eps", "v", "flow"])
def test_guidance_of_images_is_guidance_of_answers(objective: str) -> None:
    """As the papers write it."""
    process = Process(Schedule("linear", 1000), Objective(objective))
    answers = [torch.randn(X.shape), torch.randn(X.shape)]
    ask = [process.denoiser(lambda x, angle, labels, a=answer: a, None) for answer in answers]
    mixed = answers[1] + 3 * (answers[0] - answers[1])
    expected = process.denoiser(lambda x, angle, labels: mixed, None)(X, 0.6, 0.8)
    torch.testing.assert_close(guided(*ask, 3.0)(X, 0.6, 0.8), expected, atol=1e-5, rtol=1e-5)


def test_outside_of_the_interval_there_is_no_guidance() -> None:
    conditional, unconditional = Scaled(0.3), Scaled(0.7)
    denoise = guided(conditional, unconditional, 3.0, (0.5, 2.0))
    levels = ((1.0, 0.4, False), (1.0, 0.5, True), (0.5, 1.0, True), (0.4, 1.0, False), (0.0, 1.0, False))
    for alpha, sigma, inside in levels:
        before = unconditional.calls
        found = denoise(X, alpha, sigma)
        assert (unconditional.calls > before) == inside
        assert torch.equal(found, 0.3 * X) != inside
    guided(conditional, unconditional, 3.0)(X, 0.0, 1.0)
    assert unconditional.calls == 3, "an interval without an end has pure noise in it"


def test_images_are_clipped() -> None:
    assert torch.equal(clipped(Scaled(3.0))(X, 1.0, 1.0), (3.0 * X).clamp(-1, 1))
    assert torch.equal(clipped(Scaled(3.0), 2.0)(X, 1.0, 1.0), (3.0 * X).clamp(-2, 2))


def test_thresholds_are_each_images_own() -> None:
    x = torch.stack([0.5 * X[0].clamp(-1, 1), 4.0 * X[1], X[2].clamp(-1, 1)])
    found = thresholded(Scaled(1.0), 0.9, 100.0)(x, 1.0, 1.0)
    assert torch.equal(found[0], x[0]) and torch.equal(found[2], x[2]), "nothing to be bounded"
    bound = x[1].abs().flatten().quantile(0.9)
    torch.testing.assert_close(found[1], x[1].clamp(-bound, bound) / bound)
    torch.testing.assert_close(thresholded(Scaled(1.0), 0.9)(x, 1.0, 1.0), x.clamp(-1, 1), msg="1 at most: clipping")
