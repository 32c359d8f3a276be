from __future__ import annotations

import pytest
import torch

from diffusion.process.objectives import Objective
from diffusion.process.schedules import Schedule
from diffusion.process.weightings import loss_weight

LEVEL = Schedule("cosine", 1000).at(torch.linspace(0.001, 1, 1000))


@pytest.mark.parametrize("name", ("eps", "x0", "v", "flow", "edm"))
def test_min_snr_weighs_images_alike_for_every_objective(name: str) -> None:
    """A network that is off by an error of the image pays for it the same, whatever it is asked for."""
    objective, (alpha, sigma) = Objective(name), LEVEL
    error_of_output = 1 / objective.gain(alpha, sigma)
    paid = loss_weight("min_snr", objective, alpha, sigma, gamma=5.0) * error_of_output**2
    expected = (alpha / sigma).square().clamp(max=5.0)
    torch.testing.assert_close(paid, expected, rtol=1e-6, atol=0)


def test_min_snr_is_that_of_the_paper() -> None:
    """Hang et al., section 3.4."""
    alpha, sigma = LEVEL
    snr = (alpha / sigma).square()
    bounded = snr.clamp(max=5.0)
    for name, expected in (("x0", bounded), ("eps", bounded / snr), ("v", bounded / (snr + 1))):
        torch.testing.assert_close(loss_weight("min_snr", Objective(name), alpha, sigma), expected)


def test_edm_is_that_of_the_paper() -> None:
    sigma = torch.logspace(-2, 2, 20, dtype=torch.float64)
    one, data = torch.ones_like(sigma), 0.5
    torch.testing.assert_close(
        loss_weight("edm", Objective("x0", data), one, sigma), (sigma**2 + data**2) / (sigma * data) ** 2
    )
    for level in ((one, sigma), LEVEL):
        weights = loss_weight("edm", Objective("edm", data), *level)
        torch.testing.assert_close(weights, torch.ones_like(weights))


def test_without_weights_all_count_one() -> None:
    assert torch.equal(loss_weight("none", Objective("v"), *LEVEL), torch.ones(1000, dtype=torch.float64))


@pytest.mark.parametrize("weighting", ("none", "min_snr", "edm"))
@pytest.mark.parametrize("objective", ("x0", "v", "flow", "edm"))
def test_pure_noise_has_a_weight(weighting: str, objective: str) -> None:
    alpha, sigma = torch.zeros(1), torch.ones(1)
    assert loss_weight(weighting, Objective(objective), alpha, sigma).isfinite().all()
