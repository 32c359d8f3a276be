from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffusion.process.objectives import Objective
from diffusion.process.process import Process
from diffusion.process.schedules import Schedule
from diffusion.process.times import Times

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(6, 1, 4, 4, generator=GENERATOR) * 2 - 1
NOISE = torch.randn(6, 1, 4, 4, generator=GENERATOR)
UNIFORM = torch.rand(6, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 4, 5])
PROCESSES = [
    Process(Schedule("linear", 1000), Objective("eps")),
    Process(Schedule("cosine"), Objective("x0"), "min_snr"),
    Process(Schedule("cosine"), Objective("v"), "edm"),
    Process(Schedule("flow", shift=2.0), Objective("flow"), times=Times("logit_normal")),
    Process(Schedule("edm"), Objective("edm"), "edm", Times("log_normal", -1.2, 1.2)),
]


class Recorded:
    """A network of one answer that keeps what it is asked."""

    def __init__(self, answer: Tensor) -> None:
        self._answer = answer

    def __call__(self, x: Tensor, angle: Tensor, labels: Tensor | None) -> Tensor:
        self.x, self.angle, self.labels = x, angle, labels
        return self._answer


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_a_network_that_answers_the_target_has_no_loss(process: Process) -> None:
    alpha, sigma = (part.float().view(-1, 1, 1, 1) for part in process.times.level(UNIFORM, process.schedule))
    network = Recorded(process.objective.target(IMAGES, NOISE, alpha, sigma))
    losses = process.losses(network, IMAGES, LABELS, NOISE, UNIFORM)
    assert torch.equal(losses.loss, torch.zeros(6)) and torch.equal(losses.image_error, torch.zeros(6))
    assert network.labels is LABELS
    torch.testing.assert_close(network.angle, torch.atan2(sigma, alpha).flatten())
    torch.testing.assert_close(network.x * process.objective.scale(alpha, sigma), alpha * IMAGES + sigma * NOISE)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_the_error_of_the_image_is_that_of_the_denoiser(process: Process) -> None:
    answer = torch.randn(6, 1, 4, 4, generator=GENERATOR)
    losses = process.losses(Recorded(answer), IMAGES, LABELS, NOISE, UNIFORM)
    level = process.times.level(UNIFORM, process.schedule)
    for index in range(6):
        alpha, sigma = (float(part[index]) for part in level)
        network = Recorded(answer[index : index + 1])
        noisy = alpha * IMAGES[index] + sigma * NOISE[index]
        image = process.denoiser(network, LABELS[index : index + 1])(noisy[None], alpha, sigma)
        assert float(losses.image_error[index]) == pytest.approx(
            float((image - IMAGES[index]).square().mean()), rel=1e-3
        )
        assert float(network.angle) == pytest.approx(math.atan2(sigma, alpha))


def test_the_loss_trains_and_the_measured_error_does_not() -> None:
    answer = torch.zeros(6, 1, 4, 4, requires_grad=True)
    losses = PROCESSES[2].losses(Recorded(answer), IMAGES, LABELS, NOISE, UNIFORM)
    assert losses.loss.shape == losses.image_error.shape == (6,)
    assert losses.loss.requires_grad and not losses.image_error.requires_grad


def test_a_bfloat16_network_loses_nothing_more() -> None:
    answer = NOISE.bfloat16()
    losses = PROCESSES[0].losses(Recorded(answer), IMAGES, LABELS, NOISE, UNIFORM)
    assert losses.loss.dtype == torch.float32
    torch.testing.assert_close(losses.loss, (answer.float() - NOISE).square().mean((1, 2, 3)))
    image = PROCESSES[0].denoiser(Recorded(answer), LABELS)(IMAGES, 0.6, 0.8)
    assert torch.equal(image, PROCESSES[0].objective.image(answer.float(), IMAGES, 0.6, 0.8))


@pytest.mark.parametrize(
    "schedule", [Schedule("cosine"), Schedule("flow"), Schedule("linear", 1000, zero_terminal_snr=True)], ids=str
)
def test_noise_is_not_asked_for_where_nothing_else_is_left(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=f"eps .* {schedule.name} schedule"):
        Process(schedule, Objective("eps"))
    assert Process(schedule, Objective("v")).schedule.ends_in_noise
