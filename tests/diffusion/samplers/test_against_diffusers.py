"""Every sampler beside the schedulers of the package diffusers, step by step.

These work in single precision. Here they are made to work in double, tables and steps, so that all digits can be
compared.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion.process.objectives import Objective
from diffusion.process.process import Process
from diffusion.process.schedules import Schedule
from diffusion.samplers.guidance import clipped, thresholded
from diffusion.samplers.multistep import dpmpp, unipc
from diffusion.samplers.single_step import FAR, ddim, ddpm, euler, heun
from diffusion.samplers.spacing import spaced
from diffusion.samplers.steps import CLEAN, Level, Levels, Progress
from tests.diffusion.samplers.analytic import wave

diffusers = pytest.importorskip("diffusers", reason="ours are compared with its schedulers: pip install -e .[dev]")

STEPS = 20
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2", "sigmoid": "sigmoid"}
OBJECTIVES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
X = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

Denoise = Callable[[Tensor, float, float], Tensor]
Sampler = Callable[..., Tensor]


class Doubled:
    """torch or numpy, whose single precision is double."""

    def __init__(self, module: Any) -> None:
        self._module, self.float32 = module, module.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes one of theirs."""

    def make(name: str, **settings: Any) -> Any:
        kind = getattr(diffusers, f"{name}Scheduler")
        for used in (kind.__module__, "diffusers.schedulers.scheduling_utils"):
            module = importlib.import_module(used)
            monkeypatch.setattr(module, "torch", Doubled(torch))
            monkeypatch.setattr(module, "np", Doubled(np), raising=False)
        return kind(**settings)

    torch.set_default_dtype(torch.float64)
    yield make
    torch.set_default_dtype(torch.float32)


def of(schedule: Schedule, objective: str, spacing: str = "trailing", **settings: Any) -> dict[str, Any]:
    """Their settings for a schedule in 1000 steps."""
    zero = {"rescale_betas_zero_snr": True} if schedule.zero_terminal_snr else {}
    return {
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": SCHEDULES[schedule.name],
        "prediction_type": OBJECTIVES[objective],
        "timestep_spacing": {"uniform": "linspace"}.get(spacing, spacing),
        **zero,
        **settings,
    }


def answer(x: Tensor, alpha: float, sigma: float) -> Tensor:
    return wave(x, torch.full((len(x),), math.atan2(sigma, alpha), dtype=x.dtype))


def own(schedule: Schedule, objective: str) -> Denoise:
    return Process(schedule, Objective(objective)).denoiser(wave, None)


def sampled(sampler: Sampler, denoise: Denoise, levels: Levels, x: Tensor = X, **settings: Any) -> list[Tensor]:
    """Noisy images before each step, and the last ones."""
    seen: list[Progress] = []
    last = sampler(denoise, x, levels, seen.append, **settings)
    assert [progress.step for progress in seen] == list(range(len(levels) - 1))
    return [*(progress.noisy for progress in seen), last]


def alike(theirs: list[Tensor], ours: list[Tensor]) -> None:
    assert len(theirs) == len(ours)
    for step, (expected, found) in enumerate(zip(theirs, ours, strict=True)):
        assert expected.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8, msg=lambda text, s=step: f"step {s}: {text}")


def table_level(made: Any, step: Any) -> tuple[float, float]:
    kept = float(made.alphas_cumprod[int(step)])
    return math.sqrt(kept), math.sqrt(1 - kept)


def in_own_scale(made: Any, **settings: Any) -> list[Tensor]:
    """Their samples, of those whose variance stays."""
    made.set_timesteps(STEPS)
    x, samples = X, [X]
    for step in made.timesteps:
        x = made.step(answer(x, *table_level(made, step)), int(step), x, **settings).prev_sample
        samples.append(x)
    return samples


def exploding(made: Any) -> list[Tensor]:
    """Their samples, of those that are divided by alpha, brought to our scale."""
    made.set_timesteps(STEPS)
    x, samples = X * math.hypot(1, float(made.sigmas[0])), [X]
    for step in made.timesteps:
        scaled, ratio = made.scale_model_input(x, step), float(made.sigmas[made.step_index])
        x = made.step(answer(scaled, 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio)), step, x).prev_sample
        samples.append(x / math.hypot(1, float(made.sigmas[made.step_index])))
    return samples


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_tables(scheduler: Callable[..., Any], name: str, zero_terminal_snr: bool) -> None:
    schedule = Schedule(name, 1000, zero_terminal_snr)
    made = scheduler("DDPM", **of(schedule, "v"))
    alpha, sigma = schedule.at(torch.arange(1, 1001) / 1000)
    torch.testing.assert_close(alpha**2, made.alphas_cumprod, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(sigma**2, 1 - made.alphas_cumprod, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim(scheduler: Callable[..., Any], name: str, objective: str, eta: float) -> None:
    schedule = Schedule(name, 1000)
    noise = [torch.randn_like(X) for _ in range(STEPS)]
    made, drawn = scheduler("DDIM", **of(schedule, objective, clip_sample=False)), iter(noise)
    made.set_timesteps(STEPS)
    x, theirs = X, [X]
    for step in made.timesteps:
        output = answer(x, *table_level(made, step))
        x = made.step(output, int(step), x, eta=eta, variance_noise=next(drawn) if eta else None).prev_sample
        theirs.append(x)
    levels = spaced(schedule, STEPS)
    alike(theirs, sampled(ddim, own(schedule, objective), levels, eta=eta, noise=noise.__getitem__))


@pytest.mark.parametrize("objective", ["x0", "v"])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_ddim_from_pure_noise(scheduler: Callable[..., Any], name: str, objective: str) -> None:
    schedule = Schedule(name, 1000, zero_terminal_snr=True)
    made = scheduler("DDIM", **of(schedule, objective, clip_sample=False))
    alike(in_own_scale(made), sampled(ddim, own(schedule, objective), spaced(schedule, STEPS)))


@pytest.mark.parametrize("bound", [clipped, thresholded])
def test_bounded_images(scheduler: Callable[..., Any], bound: Callable[[Denoise], Denoise]) -> None:
    schedule, clips = Schedule("linear", 1000), bound is clipped
    made = scheduler("DDIM", **of(schedule, "eps", clip_sample=clips, thresholding=not clips))
    denoise = bound(own(schedule, "eps"))
    alike(in_own_scale(made, use_clipped_model_output=True), sampled(ddim, denoise, spaced(schedule, STEPS)))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_ddpm(scheduler: Callable[..., Any], name: str, objective: str) -> None:
    schedule, drawn = Schedule(name, 1000), torch.Generator().manual_seed(7)
    made = scheduler("DDPM", **of(schedule, objective, clip_sample=False))
    theirs = in_own_scale(made, generator=torch.Generator().manual_seed(7))
    noise = lambda step: torch.randn(X.shape, dtype=X.dtype, generator=drawn)  # noqa: E731
    alike(theirs, sampled(ddpm, own(schedule, objective), spaced(schedule, STEPS), noise=noise))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize(("theirs", "sampler"), [("DPMSolverMultistep", dpmpp), ("UniPCMultistep", unipc)])
def test_multistep(scheduler: Callable[..., Any], theirs: str, sampler: Sampler, name: str, objective: str) -> None:
    schedule = Schedule(name, 1000)
    made = scheduler(theirs, **of(schedule, objective, solver_order=2, final_sigmas_type="zero"))
    alike(in_own_scale(made), sampled(sampler, own(schedule, objective), spaced(schedule, STEPS)))


@pytest.mark.parametrize("objective", ["eps", "v"])
@pytest.mark.parametrize(("name", "spacing"), [("linear", "trailing"), ("cosine", "trailing"), ("linear", "karras")])
def test_euler(scheduler: Callable[..., Any], name: str, objective: str, spacing: str) -> None:
    schedule = Schedule(name, 1000)
    settings = of(schedule, objective, "uniform" if spacing == "karras" else spacing)
    made = scheduler("EulerDiscrete", **settings, use_karras_sigmas=spacing == "karras")
    alike(exploding(made), sampled(euler, own(schedule, objective), spaced(schedule, STEPS, spacing)))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_heun(scheduler: Callable[..., Any], name: str, objective: str) -> None:
    schedule = Schedule(name, 1000)
    theirs, levels = exploding(scheduler("HeunDiscrete", **of(schedule, objective))), spaced(schedule, STEPS)
    begun = levels[0].sigma > FAR * levels[0].alpha  # where ours takes other coordinates, they are alike from then on
    assert begun == (name == "cosine")
    theirs = [*theirs[:-1:2], theirs[-1]][begun:]
    alike(theirs, sampled(heun, own(schedule, objective), levels[begun:], theirs[0]))


@pytest.mark.parametrize(("theirs", "sampler"), [("EDMEuler", euler), ("EDMDPMSolverMultistep", dpmpp)])
def test_edm(scheduler: Callable[..., Any], theirs: str, sampler: Sampler) -> None:
    schedule = Schedule("edm")
    made = scheduler(theirs)
    made.set_timesteps(STEPS)
    levels = spaced(schedule, STEPS, "uniform")
    torch.testing.assert_close(torch.tensor([level.sigma for level in levels]), made.sigmas)
    x = first = X * levels[0].sigma
    samples = [x]
    for step in made.timesteps:
        scaled = made.scale_model_input(x, step)
        x = made.step(answer(scaled, 1.0, float(made.sigmas[made.step_index])), step, x).prev_sample
        samples.append(x)
    alike(samples, sampled(sampler, own(schedule, "edm"), levels, first))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(("name", "sampler"), [("FlowMatchEulerDiscrete", euler), ("FlowMatchHeunDiscrete", heun)])
def test_flow(scheduler: Callable[..., Any], name: str, sampler: Sampler, shift: float) -> None:
    schedule = Schedule("flow", shift=shift)
    made = scheduler(name, shift=shift)
    if sampler is euler:
        levels = spaced(schedule, STEPS)
        made.set_timesteps(sigmas=[1 - step / STEPS for step in range(STEPS)])
    else:
        made.set_timesteps(STEPS)
        levels = [*(Level(1 - sigma, sigma) for sigma in made.sigmas.unique().flip(0).tolist()[:-1]), CLEAN]
    assert [level.sigma for level in levels] == pytest.approx(made.sigmas.unique().flip(0).tolist())
    x, samples = X, [X]
    for step in made.timesteps:
        sigma = float(step) / 1000
        x = made.step(answer(x, 1 - sigma, sigma), step, x).prev_sample
        samples.append(x)
    alike(
        samples if sampler is euler else [*samples[:-1:2], samples[-1]], sampled(sampler, own(schedule, "flow"), levels)
    )


@pytest.mark.parametrize(("theirs", "sampler"), [("DPMSolverMultistep", dpmpp), ("UniPCMultistep", unipc)])
def test_multistep_flow(scheduler: Callable[..., Any], theirs: str, sampler: Sampler) -> None:
    made = scheduler(theirs, use_flow_sigmas=True, prediction_type="flow_prediction", final_sigmas_type="zero")
    made.set_timesteps(STEPS)
    levels = [*(Level(1 - sigma, sigma) for sigma in made.sigmas.tolist()[:-1]), CLEAN]
    x, samples = X, [X]
    for number, step in enumerate(made.timesteps):
        x = made.step(answer(x, *levels[number]), step, x).prev_sample
        samples.append(x)
    alike(samples, sampled(sampler, own(Schedule("flow"), "flow"), levels))
