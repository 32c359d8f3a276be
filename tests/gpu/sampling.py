"""Samples of a Swin U-Net: each sampler, twice, and of requests of other sizes."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.generator import Generator, sample_all
from diffusion.samplers.names import SAMPLERS
from diffusion.samplers.request import Request
from diffusion.samplers.sections import SamplingConfig
from engine.task.inference import inference_mode
from engine.training.trainer import Trainer
from tests.gpu.findings import Findings
from tests.gpu.models import STEPS, diffusion_trainer, losses

MANY, FEW, BLOCK = 20, 5, 8
LEVELS = 4.0
"""How far the images in bf16 may be from those in fp32, in the mean, of 255."""


def sampling(findings: Findings) -> None:
    """After ten steps of training: images that are the same each time, and nearly the same in each precision."""
    exact: dict[str, Tensor] = {}
    for precision in ("fp32", "bf16"):
        trainer = diffusion_trainer(findings, f"training.precision={precision}")
        losses(trainer, trainer.batches(), 10)
        for sampler in SAMPLERS:
            name = f"{sampler} {precision}"
            with findings.part(name):
                images = _sampled(trainer, MANY, sampler)
                findings.check(images.float().std() > 1, f"{name}: all pixels are alike")
                findings.check(torch.equal(images, _sampled(trainer, MANY, sampler)), f"{name}: other bits each time")
                fewer = _sampled(trainer, FEW, sampler)
                findings.check(torch.equal(images[:FEW], fewer), f"{name}: an image depends on how many are asked for")
                off = float((images.float() - exact.setdefault(sampler, images).float()).abs().mean())
                findings.check(off <= LEVELS, f"{name}: {off:.3g} levels from fp32")
                findings.figure(name, f"{off:.2g} levels")


def _sampled(trainer: Trainer, count: int, sampler: str) -> Tensor:
    generator = trainer.task.generator  # type: ignore[attr-defined]
    assert isinstance(generator, Generator)
    config = SamplingConfig.model_validate({"sampler": sampler, "steps": STEPS, "block": BLOCK, "guidance": 2.0})
    with inference_mode(generator.model, trainer.learner.precision):
        return sample_all(generator, generator.model, Request(count, 0, (3, 8)), config, trainer.ranks)
