"""Ten steps of each model, in each precision, and with what changes a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from engine.training.trainer import Trainer
from tests.gpu.findings import Findings
from tests.gpu.models import SKIPS, diffusion_trainer, losses, resnet_trainer, ssd_trainer, swin_trainer, train
from tools.chaos.compare import tree_difference

PRECISIONS = ("bf16", "fp16", "fp32")
AGREEMENT = {"bf16": 0.05, "fp16": 0.02, "fp32": 0.0}
"""How far the first loss may be from that of fp32, as a part of it."""


def swin(findings: Findings) -> None:
    """Swin-T in all precisions."""
    _all_precisions(findings, "swin", swin_trainer)


def resnet(findings: Findings) -> None:
    """ResNet-50 in all precisions."""
    _all_precisions(findings, "resnet", resnet_trainer)


def ssd(findings: Findings) -> None:
    """SSD with FPN on Swin-T in all precisions."""
    _all_precisions(findings, "ssd", ssd_trainer)


def diffusion(findings: Findings) -> None:
    """Swin U-Net in all precisions."""
    _all_precisions(findings, "diffusion", diffusion_trainer)


def _all_precisions(findings: Findings, name: str, trainer: Callable[..., Trainer]) -> None:
    first: dict[str, float] = {}
    for precision in reversed(PRECISIONS):
        with findings.part(f"{name} {precision}"):
            found = train(findings, f"{name} {precision}", trainer(findings, f"training.precision={precision}"))
            first[precision] = found[0]
    for precision, loss in first.items():
        if not math.isnan(loss) and "fp32" in first:  # fp16's first scale may be too large
            off = abs(loss / first["fp32"] - 1)
            findings.check(
                off <= AGREEMENT[precision], f"{name} {precision}: first loss {loss}, in fp32 {first['fp32']}"
            )


def variants(findings: Findings) -> None:
    """Moving average, accumulation and activation checkpointing, whose first loss is the plain one."""
    settings = {
        "plain": [],
        "ema": ["training.ema={decay: 0.9}"],
        "accumulation": [f"training.micro_batch_size={2 if findings.small else 8}"],
        "activation_checkpointing": ["training.activation_checkpointing=true"],
    }
    settings["all"] = [override for overrides in settings.values() for override in overrides]
    first: dict[str, float] = {}
    for name, overrides in settings.items():
        with findings.part(name):
            trainer = swin_trainer(findings, "training.precision=fp32", "training.tf32=false", *overrides)
            first[name] = train(findings, name, trainer)[0]
            off = abs(first[name] / first["plain"] - 1)
            findings.check(off < 1e-4, f"{name}: first loss {first[name]}, plain {first['plain']}")
            if trainer.learner.ema is not None:
                average, model = trainer.learner.ema.module.state_dict(), trainer.task.model.state_dict()
                findings.check(tree_difference(average, model) is not None, f"{name}: the average is the model")
                finite = all(bool(value.isfinite().all()) for value in average.values())
                findings.check(finite, f"{name}: the average is not finite")


def deterministic(findings: Findings) -> None:
    """Two runs of each model with `training.deterministic`, evaluation included, bit for bit."""
    models = {"swin": swin_trainer, "resnet": resnet_trainer, "ssd": ssd_trainer, "diffusion": diffusion_trainer}
    for name, build in models.items():
        with findings.part(name):
            one, two = (_run(build(findings, "training.deterministic=true", *_EVERYTHING)) for _ in range(2))
            difference = tree_difference(one, two)
            findings.check(difference is None, f"{name}: two runs differ: {difference}")
            findings.figure(name, "same bits" if difference is None else "other bits")


_EVERYTHING = ("training.precision=bf16", "training.ema={decay: 0.9}", "training.clip_grad_norm=1.0")


def _run(trainer: Trainer) -> dict[str, Any]:
    found = losses(trainer, trainer.batches(), 5)
    state = deepcopy({name: entry for name, entry in trainer.state_dict().items() if name != "config"})
    return {"losses": found, "metrics": trainer.evaluate("val").metrics, **state}


def infinity(findings: Findings) -> None:
    """fp16 with an infinite loss: the step is skipped, the scale halved, and nothing else changes."""
    trainer = swin_trainer(findings, "training.precision=fp16", "training.ema={decay: 0.9}")
    batches = trainer.batches()
    before = losses(trainer, batches, SKIPS + 1)
    findings.check(not math.isnan(before[-1]), "no step in fp16 was made before the infinite one")
    scale, left = trainer.learner.scaler.get_scale(), _weights(trainer)
    step = trainer.task.training_step
    trainer.task.training_step = lambda model, batch: {  # type: ignore[method-assign]
        name: value * math.inf for name, value in step(model, batch).items()
    }
    (loss,) = losses(trainer, batches, 1)
    trainer.task.training_step = step  # type: ignore[method-assign]
    findings.check(math.isnan(loss) and trainer.state.skipped_in_row == 1, "the infinite step was not skipped")
    findings.figure("scale", f"{scale:g} -> {trainer.learner.scaler.get_scale():g}")
    findings.check(trainer.learner.scaler.get_scale() == scale / 2, "the scale was not halved")
    difference = tree_difference(left, _weights(trainer))
    findings.check(difference is None, f"the infinite step changed {difference}")
    after = losses(trainer, batches, 2)
    findings.check(not math.isnan(after[-1]), "steps after the infinite one are skipped too")
    findings.check(tree_difference(left, _weights(trainer)) is not None, "steps after the infinite one change nothing")


def _weights(trainer: Trainer) -> dict[str, Any]:
    """All that an update changes; the rate is another each step, skipped or not."""
    state = trainer.state_dict()
    return deepcopy({"model": state["model"], "ema": state["ema"], "optimizer": state["optimizer"]["state"]})
