"""What takes how long on the device; each stage runs alone."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import timm
import torch
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2

import swin
from detection.boxes.postprocess import Detections, class_scores, postprocess
from detection.boxes.sections import PostprocessConfig
from engine.checkpoints.background_saver import Saver
from engine.data.device_prefetch import DeviceBatches
from engine.data.loaders import MicroBatch
from engine.training.trainer import Trainer
from tests.detection.scenes import suppressing
from tests.gpu.findings import Findings
from tests.gpu.models import losses, resnet_trainer, swin_trainer
from tools.bench.checkpoint import Saving, Training
from tools.bench.detection import FULL, QUICK, output, some_priors
from tools.bench.step import by_hand, by_trainer
from tools.bench.timing import interleaved

LARGEST_DIFFERENCE = 0.02
"""Of the losses of a compiled and an eager run in bf16, as a part of them: compiled code rounds less often."""


def throughput(findings: Findings) -> None:
    """Images a second of the trainer, of a bare loop and of timm's step, on one batch again and again."""
    rounds, steps = (1, 1) if findings.small else (5, 20)
    work: dict[tuple[str, str], Callable[[], float]] = {}
    for name, build in (("swin", swin_trainer), ("resnet", resnet_trainer)):
        with findings.part(name):
            trainer, other = (build(findings, "training.precision=bf16", batch=128) for _ in range(2))
            batch = trainer.batches().next()
            work[name, "trainer"] = by_trainer(trainer, steps, _again(trainer, batch))
            work[name, "by hand"] = by_hand(other, steps, _again(other, batch))
            work[name, "timm"] = timms(trainer, name, steps, _again(trainer, batch), findings.small)
    for name, cells in interleaved(work, rounds).items():
        for column, values in cells.items():
            findings.figure(f"{name} {column} images/s", median(values))
        with findings.part(name):
            findings.figure(f"{name} trainer / by hand", median(cells["trainer"]) / median(cells["by hand"]))
    if findings.device == "cuda":
        findings.figure("peak GB, all at once", torch.cuda.max_memory_allocated() / 1e9)
    with findings.part("from the loader"):
        trainer = swin_trainer(findings, "training.precision=bf16", batch=128)
        measure = by_trainer(trainer, steps)
        findings.figure("swin trainer from the loader images/s", [measure() for _ in range(2)][-1])


def _again(trainer: Trainer, batch: MicroBatch) -> DeviceBatches:
    return DeviceBatches(itertools.repeat(batch), trainer.ranks.device)


def timms(trainer: Trainer, name: str, steps: int, batches: DeviceBatches, small: bool) -> Callable[[], float]:
    """Images a second of what timm's training script does a step, with timm's model, optimizer and loss."""
    device = trainer.ranks.device
    names = {"swin": "swin_tiny_patch4_window7_224", "resnet": "resnet10t" if small else "resnet50"}
    size = {"img_size": 32} if small and name == "swin" else {}
    model = timm.create_model(names[name], num_classes=10, **size).to(device).train()
    layout = torch.channels_last if name == "resnet" else torch.contiguous_format
    model = model.to(memory_format=layout)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
    criterion = LabelSmoothingCrossEntropy(0.1)

    def measure() -> float:
        begin, seen = perf_counter(), 0
        for _ in range(steps):
            batch = batches.next().data
            images = (batch["image"].float() / 255 - 0.5).div_(0.5).contiguous(memory_format=layout)
            with trainer.learner.precision.autocast():
                loss = criterion(model(images), batch["label"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seen += len(images)
        loss.item()
        return seen / (perf_counter() - begin)

    return measure


def suppression(findings: Findings) -> None:
    """Post-processing of a batch, with doubles suppressed in many images at once and image by image."""
    size, device = QUICK if findings.small else FULL, torch.device(findings.device)
    rng = torch.Generator().manual_seed(0)
    priors = some_priors(size, rng)
    logits, codes = (tensor.detach() for tensor in output(size, rng, background=0.0))
    repeats = 1 if findings.small else 256 // size.batch
    for images in (size.batch, size.batch * repeats):
        inputs = [tensor.repeat(images // size.batch, 1, 1).to(device) for tensor in (logits, codes)]
        given = (class_scores(inputs[0], sigmoid=False), inputs[1], priors.to(device), PostprocessConfig())
        found: dict[bool, Detections] = {}
        for together in (True, False):
            name = f"{images} images {'together' if together else 'one by one'}"
            with findings.part(name):
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                samples = []
                for _ in range(4):
                    begin = perf_counter()
                    with suppressing(together):
                        found[together] = postprocess(*given)
                    found[together].counts.tolist()
                    samples.append(1000 * (perf_counter() - begin))
                findings.figure(f"{name} ms", median(samples[1:]))
                if device.type == "cuda":
                    findings.figure(f"{name} peak GB", torch.cuda.max_memory_allocated() / 1e9)
        if len(found) == 2:
            same = all(torch.equal(vars(found[True])[key], vars(found[False])[key]) for key in ("labels", "counts"))
            findings.check(same, f"{images} images: the two ways find other boxes")


def checkpoint(findings: Findings) -> None:
    """How long a save keeps the loop from going on, and until it is on disk."""
    device = torch.device(findings.device)
    model = swin.swin_tiny(embed_dim=24, num_heads=(1, 2, 4, 8)) if findings.small else swin.swin_tiny()
    with tempfile.TemporaryDirectory() as name:
        training = Training(model.to(device), 64 if findings.small else 224, device)
        training.step()
        saver = Saver(Path(name) / "background", keep=2)
        saving = Saving(training, Path(name) / "synchronous", saver)
        measures = {"loop blocked": saving.blocked, "until on disk": saving.on_disk, "in the loop": saving.synchronous}
        for label, measure in measures.items():
            findings.figure(f"{label} ms", median([measure() for _ in range(4)][1:]))
        findings.figure("step ms", median(training.step() for _ in range(5)))
        findings.figure("step while saving ms", saving.steps())
        saver.close()
        files = sorted(Path(name).rglob("step_*.pt"))
        findings.figure("MB", max(file.stat().st_size for file in files) / 1e6)
        saved = torch.load(files[-1], weights_only=True)["model"]
        finite = all(bool(value.isfinite().all()) and not value.is_cuda for value in saved.values())
        findings.check(finite, "what was saved is not finite, or lies on the device")


def compiled(findings: Findings) -> None:
    """`training.compile` beside eager: the same losses, the time until the first step is made, images a second."""
    found: dict[str, list[float]] = {}
    for name, compile in (("eager", "false"), ("compiled", "true")):
        with findings.part(name):
            trainer = swin_trainer(findings, "training.precision=bf16", f"training.compile={compile}", batch=64)
            begin = perf_counter()
            batches = _again(trainer, trainer.batches().next())
            first = losses(trainer, batches, 1)
            findings.figure(f"{name} first step s", perf_counter() - begin)
            found[name] = first + losses(trainer, batches, 4)
            findings.figure(f"{name} images/s", by_trainer(trainer, 1 if findings.small else 20, batches)())
    if len(found) == 2:
        off = max(abs(one / other - 1) for one, other in zip(*found.values(), strict=True))
        findings.figure("losses apart", off)
        findings.check(off < LARGEST_DIFFERENCE, f"losses {found['compiled']}, eager {found['eager']}")
