from __future__ import annotations

import math

import pytest
import torch

from diffusion.model.embedding import FREQUENCIES, Condition, sinusoids


def test_angles_a_thousandth_apart_are_told_apart() -> None:
    angles = torch.linspace(0, math.pi / 2, 1571)
    waves = sinusoids(angles)
    assert waves.shape == (1571, 2 * FREQUENCIES)
    assert waves.diff(dim=0).norm(dim=1).min() > 1
    torch.testing.assert_close(waves[:, 0], angles.sin())
    torch.testing.assert_close(waves[:, FREQUENCIES - 1], (1000 * angles).sin(), atol=1e-3, rtol=0)


def test_classes_start_far_from_each_other() -> None:
    """Of standard deviation 1; with 0.02 they are learned far slower."""
    torch.manual_seed(0)
    condition = Condition(64, 10)
    assert condition.classes is not None and condition.classes.weight.shape == (11, 64)
    assert float(condition.classes.weight.std()) == pytest.approx(1, abs=0.1)


def test_a_network_of_classes_wants_to_be_told_one() -> None:
    with pytest.raises(AssertionError, match="classes"):
        Condition(8, 2)(torch.rand(1), None)
    assert Condition(8, 0)(torch.rand(3), None).shape == (3, 8)
