"""Trainers of the models that stages run, on the one card that they see, and steps of theirs."""

from __future__ import annotations

import math
import time

import torch

from classification.config import ClassificationConfig
from classification.spec import SPEC as CLASSIFICATION
from detection.config import DetectionConfig
from detection.spec import SPEC as DETECTION
from diffusion.config import DiffusionConfig
from diffusion.spec import SPEC as DIFFUSION
from engine.config.load import load_config
from engine.data.device_prefetch import DeviceBatches
from engine.training.state import Window
from engine.training.trainer import Trainer
from tests.environment import ROOT
from tests.gpu.findings import Findings
from tools.bench import step

SKIPS = 4
"""Most steps of ten in which fp16's scale may still be too large."""
STEPS = 4
"""Of the samples that a diffusion makes."""
_SWIN = {
    False: ["model={name: swin_tiny, drop_path: 0.0}", "data.image_size=224", "data.workers=4"],
    True: ["model.embed_dim=24", "data.workers=0"],
}
_RESNET = {
    False: ["model={name: timm/resnet50}", "data.image_size=224", "data.workers=4"],
    True: ["model={name: timm/resnet10t}", "data.image_size=64", "data.workers=0"],
}


def swin_config(findings: Findings, *overrides: str, batch: int = 32) -> ClassificationConfig:
    """Swin-T on digits of 224 x 224 pixels; in a rehearsal the quickstart's Swin, narrower."""
    size = f"training.global_batch_size={4 if findings.small else batch}"
    return step.configured([*_SWIN[findings.small], "training.steps=1000000", size, *overrides])


def swin_trainer(findings: Findings, *overrides: str, batch: int = 32) -> Trainer:
    """The trainer of :func:`swin_config`."""
    return step.build(CLASSIFICATION, swin_config(findings, *overrides, batch=batch))


def resnet_trainer(findings: Findings, *overrides: str, batch: int = 32) -> Trainer:
    """ResNet-50 on digits of 224 x 224 pixels."""
    size = f"training.global_batch_size={4 if findings.small else batch}"
    return step.build(
        CLASSIFICATION, step.configured([*_RESNET[findings.small], "training.steps=1000000", size, *overrides])
    )


def ssd_trainer(findings: Findings, *overrides: str) -> Trainer:
    """SSD with FPN on Swin-T, from random weights, on drawn shapes."""
    side, images, batch, workers = (64, 8, 2, 0) if findings.small else (336, 64, 16, 4)
    data = (
        f"data={{source: shapes, train_images: {images}, val_images: {batch}, "
        f"canvas_size: [{side}, {side}], image_size: {side}, workers: {workers}}}"
    )
    size = f"training.global_batch_size={batch}"
    steps = ["training.steps=1000000", "schedule.warmup_epochs=0", "finetune.weights=null"]
    recipe = ROOT / "configs" / "detection" / "swin_b_fpn.yaml"
    return step.build(DETECTION, load_config(DetectionConfig, recipe, [data, size, *steps, *overrides]))


def diffusion_trainer(findings: Findings, *overrides: str) -> Trainer:
    """Swin U-Net-T on digits of 32 x 32 pixels in colour; in a rehearsal the quickstart's, narrower."""
    side, channels, batch, workers = (16, 1, 4, 0) if findings.small else (32, 3, 128, 4)
    settings = [
        "model.embed_dim=16" if findings.small else "model={name: swin_unet_tiny}",
        f"data={{source: digits, image_size: {side}, channels: {channels}, workers: {workers}}}",
        f"training.global_batch_size={batch}",
        f"diffusion.sampling.steps={STEPS}",
        "schedule.warmup_steps=0",
        "training.steps=1000000",
    ]
    recipe = ROOT / "configs" / "diffusion" / "quickstart.yaml"
    return step.build(DIFFUSION, load_config(DiffusionConfig, recipe, [*settings, *overrides]))


def losses(trainer: Trainer, batches: DeviceBatches, steps: int) -> list[float]:
    """The loss of each of ``steps`` steps; not a number for one that was skipped."""
    found = []
    for _ in range(steps):
        trainer.state.window = Window()
        trainer.train_step(batches)
        trainer.settle()
        found.append(trainer.state.window.means().get("loss", math.nan))
    return found


def train(findings: Findings, name: str, trainer: Trainer, steps: int = 10) -> list[float]:
    """Trains and evaluates; checks that all is finite and notes what it took. Returns the losses."""
    cuda = findings.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    found = losses(trainer, trainer.batches(), steps)
    skipped = sum(math.isnan(loss) for loss in found)
    findings.figure(name, f"loss {found[-1]:.3g}")
    findings.check(
        skipped <= (SKIPS if trainer.learner.precision.name == "fp16" else 0), f"{name}: {skipped} steps skipped"
    )
    if cuda:
        findings.figure(f"{name} peak GB", torch.cuda.max_memory_allocated() / 1e9)
    begin = time.perf_counter()
    metrics = trainer.evaluate("val").metrics
    findings.figure(f"{name} evaluation s", time.perf_counter() - begin)
    decisive = trainer.task.metrics.default
    findings.check(0.0 <= metrics[decisive] <= 1.0, f"{name}: {decisive} is {metrics[decisive]}")
    return found
