"""Every sampler beside the schedulers of the package diffusers, step by step and in double precision.

Its tables are single precision: they are compared as such, and its steps over tables that have been made anew in double.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.process.objectives import Objective
from diffusion.process.process import Process
from diffusion.process.schedules import Schedule
from diffusion.samplers.multistep import dpmpp, unipc
from diffusion.samplers.single_step import ddim, ddpm, euler, heun
from diffusion.samplers.spacing import spaced
from diffusion.samplers.steps import CLEAN, Level, Progress
from tests.diffusion.samplers.analytic import wave

diffusers = pytest.importorskip("diffusers", reason="its schedulers are what ours are compared with: pip install -e .[dev]")

STEPS = 20
TOLERANCE = 1e-9
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2", "sigmoid": "sigmoid"}
OBJECTIVES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
X = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def scheduler(name: str, schedule: Schedule, objective: str, **settings: Any) -> Any:
    """One of theirs over 1000 steps, its tables as double as ours."""
    made = getattr(diffusers, f"{name}Scheduler")(
        beta_schedule=SCHEDULES[schedule.name],
        prediction_type=OBJECTIVES[objective],
        timestep_spacing="trailing",
        rescale_betas_zero_snr=schedule.zero_terminal_snr,
        **settings,
    )
    own = made.alphas_cumprod.double()
    made.alphas_cumprod = schedule.at(torch.arange(1, 1001, dtype=torch.float64) / 1000)[0] ** 2
    torch.testing.assert_close(own[:-1], made.alphas_cumprod[:-1], rtol=2e-4, atol=1e-9)
    made.set_timesteps(STEPS)
    if hasattr(made, "sigmas"):
        exact = ((1 - made.alphas_cumprod) / made.alphas_cumprod) ** 0.5
        exact = torch.cat([exact[made.timesteps.long()], torch.zeros(1)])
        if len(exact) < len(made.sigmas):  # Heun's: each twice but the first
            exact = exact.repeat_interleave(2)[1:-1]
        torch.testing.assert_close(made.sigmas.double(), exact, rtol=1e-5, atol=0)
        made.sigmas = exact
    return made


def ours(sampler: Callable[..., Tensor], schedule: Schedule, objective: str, **settings: Any) -> list[Tensor]:
    """Noisy images before each step, and the last ones."""
    seen: list[Progress] = []
    denoise = Process(schedule, Objective(objective)).denoiser(wave, None)
    levels = spaced(schedule, STEPS, "trailing")
    last = sampler(denoise, X, levels, seen.append, **settings)
    assert [progress.step for progress in seen] == list(range(STEPS))
    return [*(progress.noisy for progress in seen), last]


def answer(x: Tensor, alpha: float, sigma: float) -> Tensor:
    return wave(x, torch.full((len(x),), math.atan2(sigma, alpha), dtype=x.dtype))


def alike(theirs: list[Tensor], own: list[Tensor]) -> None:
    assert len(theirs) == len(own)
    for step, (expected, found) in enumerate(zip(theirs, own, strict=True)):
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text, s=step: f"{s}: {text}")


def in_own_scale(made: Any, schedule: Schedule, **settings: Any) -> list[Tensor]:
    """Their samples where these keep the variance."""
    x, samples = X, [X]
    for step in made.timesteps:
        alpha, sigma = (float(part) for part in schedule.at((step.double() + 1) / 1000))
        x = made.step(answer(x, alpha, sigma), int(step), x, **settings).prev_sample
        samples.append(x)
    return samples


def exploding(made: Any) -> list[Tensor]:
    """Their samples where they are divided by alpha, brought to our scale."""
    first = float(made.sigmas[0])
    x, samples = X * math.sqrt(1 + first**2), [X]
    for step in made.timesteps:
        ratio = float(made.sigmas[made.step_index or 0])
        alpha, sigma = 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio)
        x = made.step(answer(made.scale_model_input(x, step), alpha, sigma), step, x).prev_sample
        samples.append(x / math.hypot(1, float(made.sigmas[made.step_index])))
    return samples


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim(name: str, objective: str, eta: float) -> None:
    if name == "sigmoid":
        pytest.skip("theirs has no such schedule for DDIM")
    schedule = Schedule(name, 1000)
    noise = [torch.randn_like(X) for _ in range(STEPS)]
    made, drawn = scheduler("DDIM", schedule, objective, clip_sample=False), iter(noise)
    x, samples = X, [X]
    for step in made.timesteps:
        alpha, sigma = (float(part) for part in schedule.at((step.double() + 1) / 1000))
        x = made.step(answer(x, alpha, sigma), int(step), x, eta=eta, variance_noise=next(drawn)).prev_sample
        samples.append(x)
    alike(samples, ours(ddim, schedule, objective, eta=eta, noise=noise.__getitem__))


@pytest.mark.parametrize("objective", ["x0", "v"])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_ddim_without_terminal_snr(name: str, objective: str) -> None:
    schedule = Schedule(name, 1000, zero_terminal_snr=True)
    made = scheduler("DDIM", schedule, objective, clip_sample=False)
    alike(in_own_scale(made, schedule), ours(ddim, schedule, objective))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddpm(name: str, objective: str) -> None:
    schedule = Schedule(name, 1000)
    made = scheduler("DDPM", schedule, objective, clip_sample=False)
    generator = torch.Generator().manual_seed(7)
    samples = in_own_scale(made, schedule, generator=torch.Generator().manual_seed(7))
    own = ours(
        ddpm, schedule, objective, noise=lambda step: torch.randn(X.shape, dtype=X.dtype, generator=generator)
    )
    alike(samples, own)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize(("theirs", "sampler"), [("DPMSolverMultistep", dpmpp), ("UniPCMultistep", unipc)])
def test_multistep(theirs: str, sampler: Callable[..., Tensor], name: str, objective: str) -> None:
    schedule = Schedule(name, 1000)
    made = scheduler(theirs, schedule, objective, solver_order=2, final_sigmas_type="zero")
    alike(in_own_scale(made, schedule), ours(sampler, schedule, objective))


@pytest.mark.parametrize("objective", ["eps", "v"])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_euler(name: str, objective: str) -> None:
    schedule = Schedule(name, 1000)
    alike(exploding(scheduler("EulerDiscrete", schedule, objective)), ours(euler, schedule, objective))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_heun(name: str, objective: str) -> None:
    schedule = Schedule(name, 1000)
    made = scheduler("HeunDiscrete", schedule, objective)
    alike(exploding(made)[::2], ours(heun, schedule, objective)[:-1])
