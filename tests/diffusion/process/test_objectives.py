from __future__ import annotations

import pytest
import torch

from diffusion.process.objectives import Objective
from diffusion.process.schedules import Schedule

NAMES = ("eps", "x0", "v", "flow", "edm")
SCHEDULES = (Schedule("linear", 1000), Schedule("flow"), Schedule("edm"))
GENERATOR = torch.Generator().manual_seed(0)
IMAGE, NOISE = torch.randn(2, 9, 3, 4, 5, dtype=torch.float64, generator=GENERATOR)


def levels(schedule: Schedule) -> tuple[torch.Tensor, torch.Tensor]:
    alpha, sigma = schedule.at(torch.linspace(0.01, 0.99, 9))
    return alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_image_is_found_in_the_target(name: str, schedule: Schedule) -> None:
    objective, (alpha, sigma) = Objective(name), levels(schedule)
    target = objective.target(IMAGE, NOISE, alpha, sigma)
    torch.testing.assert_close(objective.image(target, alpha * IMAGE + sigma * NOISE, alpha, sigma), IMAGE)
    one = (float(alpha[3]), float(sigma[3]))
    found = objective.image(target[3:4], one[0] * IMAGE[3:4] + one[1] * NOISE[3:4], *one)
    torch.testing.assert_close(found, IMAGE[3:4])


@pytest.mark.parametrize("name", ("x0", "v", "flow", "edm"))
def test_pure_noise_is_no_exception(name: str) -> None:
    objective = Objective(name)
    target = objective.target(IMAGE, NOISE, 0.0, 1.0)
    torch.testing.assert_close(objective.image(target, NOISE, 0.0, 1.0), IMAGE)


def test_targets_are_those_of_the_papers() -> None:
    alpha, sigma = levels(Schedule("cosine"))
    assert torch.equal(Objective("eps").target(IMAGE, NOISE, alpha, sigma), NOISE)
    assert torch.equal(Objective("x0").target(IMAGE, NOISE, alpha, sigma), IMAGE)
    assert torch.equal(Objective("flow").target(IMAGE, NOISE, alpha, sigma), NOISE - IMAGE)
    torch.testing.assert_close(Objective("v").target(IMAGE, NOISE, alpha, sigma), alpha * NOISE - sigma * IMAGE)


def test_edm_is_the_preconditioning_of_its_paper() -> None:
    """Table 1 of Karras et al.: D(x, sigma) = c_skip x + c_out F(c_in x)."""
    sigma = levels(Schedule("edm"))[1]
    data, one = 0.5, torch.ones_like(sigma)
    total = sigma**2 + data**2
    output, noisy = IMAGE, IMAGE + sigma * NOISE
    expected = data**2 / total * noisy + sigma * data / total.sqrt() * output
    objective = Objective("edm", data)
    torch.testing.assert_close(objective.image(output, noisy, one, sigma), expected)
    torch.testing.assert_close(1 / objective.scale(one, sigma), 1 / total.sqrt())
    torch.testing.assert_close(objective.gain(one, sigma), sigma * data / total.sqrt())


@pytest.mark.parametrize("name", NAMES)
def test_levels_of_one_ratio_are_one(name: str) -> None:
    objective, (alpha, sigma), scale = Objective(name), levels(Schedule("cosine")), 3.7
    torch.testing.assert_close(
        objective.target(IMAGE, NOISE, scale * alpha, scale * sigma), objective.target(IMAGE, NOISE, alpha, sigma)
    )
    torch.testing.assert_close(objective.scale(scale * alpha, scale * sigma), scale * objective.scale(alpha, sigma))
    torch.testing.assert_close(
        objective.image(NOISE, scale * IMAGE, scale * alpha, scale * sigma), objective.image(NOISE, IMAGE, alpha, sigma)
    )
