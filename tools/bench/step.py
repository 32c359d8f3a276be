"""The training loop beside a bare one written by hand, with the same model, data, optimizer and precision.

The bare loop does what the least of training scripts does: forward pass, loss, backward pass, optimizer step. Whatever
the suite adds (one number for all ranks, norms, skipped steps, records) is what the difference measures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F

from classification.config import ClassificationConfig
from classification.spec import SPEC
from classification.task import ClassificationTask
from engine.commands.build import build_trainer
from engine.config.load import load_config
from engine.config.run import DistributedConfig
from engine.data.device_prefetch import DeviceBatches
from engine.devices.memory_layout import uses_channels_last
from engine.distributed.connect import choose_device
from engine.distributed.layout import Layout
from engine.distributed.ranks import Ranks
from engine.training.trainer import Trainer
from tools.bench.timing import Table, interleaved

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "digits Swin, batch 32": (["training.global_batch_size=32"], 20),
    "EfficientNet-Lite0 at 224, batch 16": (
        [
            "model={name: timm/tf_efficientnet_lite0}",
            "data.image_size=224",
            "training.global_batch_size=16",
        ],
        5,
    ),
    "Swin-T at 224, batch 8": (
        ["model={name: swin_tiny}", "data.image_size=224", "training.global_batch_size=8"],
        2,
    ),
}
"""Settings on top of the quickstart's, and the steps of one sample."""


def run(quick: bool = False) -> Table:
    """Measures; `quick` is for seeing that it works: the smallest case, one round of two steps."""
    cases = dict(list(CASES.items())[:1]) if quick else CASES
    work: dict[tuple[str, str], Callable[[], float]] = {}
    for case, (overrides, steps) in cases.items():
        for precision in ("fp32",) if quick else ("fp32", "bf16"):
            row = f"{case}, {precision}"
            config = configured([*overrides, f"training.precision={precision}", "training.steps=1000000"])
            work[row, "by hand"] = by_hand(build(config), 2 if quick else steps)
            work[row, "trainer"] = bybuild(build(config), 2 if quick else steps)
    samples = interleaved(work, 1 if quick else 7)
    table = Table("step", "Training loop", "images/s", samples)
    for row, cells in table.medians().items():
        table.ratios[f"{row}: trainer / by hand"] = {"trainer": cells["trainer"] / cells["by hand"]}
    return table


def configured(overrides: list[str]) -> ClassificationConfig:
    """Returns the quickstart's configuration with other settings."""
    return load_config(ClassificationConfig, ROOT / "configs" / "classification" / "quickstart.yaml", overrides)


def build(config: ClassificationConfig) -> Trainer:
    """Builds a classifier's trainer, in a process of its own."""
    return build_trainer(SPEC, config, Ranks(Layout(), choose_device(DistributedConfig(), Layout())))


def bybuild(trainer: Trainer, steps: int, batches: DeviceBatches | None = None) -> Callable[[], float]:
    """Images a second of ``steps`` steps of the suite's loop, over ``batches`` or the trainer's own."""
    batches = batches or trainer.batches()

    def measure() -> float:
        start = perf_counter()
        for _ in range(steps):
            trainer.train_step(batches)
        _wait(trainer)
        return steps * trainer.layout.global_batch_size / (perf_counter() - start)

    return measure


def by_hand(trainer: Trainer, steps: int, batches: DeviceBatches | None = None) -> Callable[[], float]:
    """Images a second of a bare loop over the same batches. It uses the trainer's parts, but none of its code."""
    task, device, precision = trainer.task, trainer.ranks.device, trainer.learner.precision
    assert isinstance(task, ClassificationTask)
    model = task.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    wanted = uses_channels_last("auto", task.model)
    layout = torch.channels_last if wanted else torch.contiguous_format
    source = batches or trainer.batches()

    def measure() -> float:
        start = perf_counter()
        for _ in range(steps):
            batch = source.next().data
            images = ((batch["image"].float() / 255 - mean) / std).contiguous(memory_format=layout)
            with precision.autocast():
                loss = F.cross_entropy(model(images).float(), batch["label"], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        loss.item()
        _wait(trainer)
        return steps * trainer.layout.global_batch_size / (perf_counter() - start)

    return measure


def _wait(trainer: Trainer) -> None:
    if trainer.ranks.device.type == "cuda":
        torch.cuda.synchronize()
