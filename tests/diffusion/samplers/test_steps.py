from __future__ import annotations

import math

import torch

from diffusion.samplers.single_step import ancestral_std
from diffusion.samplers.steps import CLEAN, Level, moved


def test_moving_keeps_image_and_noise() -> None:
    image, noise = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    for level, to in (
        (Level(0.0, 1.0), Level(0.6, 0.8)),
        (Level(1.0, 80.0), Level(1.0, 3.0)),
        (Level(0.2, 0.8), CLEAN),
    ):
        noisy, expected = (at.alpha * image + at.sigma * noise for at in (level, to))
        torch.testing.assert_close(moved(noisy, image, level, to), expected)


def test_log_snr_has_both_ends() -> None:
    assert [CLEAN.log_snr, Level(0.5, 0.5).log_snr, Level(0.0, 1.0).log_snr] == [math.inf, 0.0, -math.inf]


def test_the_ancestral_spread_is_that_of_the_posterior() -> None:
    """Of z' given z and the image, both normal: 1 / (1 / var(z' | image) + kept^2 / var(z | z'))."""
    level, to = Level(0.5, math.sqrt(0.75)), Level(0.8, 0.6)
    kept = level.alpha / to.alpha
    added = level.sigma**2 - kept**2 * to.sigma**2
    assert math.isclose(ancestral_std(level, to) ** 2, 1 / (1 / to.sigma**2 + kept**2 / added))
    assert ancestral_std(Level(0.0, 1.0), to) == to.sigma, "from pure noise nothing is known but the image"
    assert ancestral_std(level, CLEAN) == 0
